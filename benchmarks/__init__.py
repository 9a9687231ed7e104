"""Benchmarks: ``python -m benchmarks`` lists them. Each puts a bare redis-py loop beside ours, in the same run."""
