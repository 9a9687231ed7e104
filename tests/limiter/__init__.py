"""Limiters: slots that are taken, waited for, renewed, lost and given back."""
