"""Mutants: copies of the code with one guard broken. Each must be caught, else a test only looks as if it held it.

python -m tests.mutants [NAME...] [--list] [--jobs N]
"""
