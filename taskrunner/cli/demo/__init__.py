"""``taskrunner demo``: every file of Python's standard library is counted by jobs in two worker processes, one of which
is killed on the way; then everything is counted once more without jobs, and both must be equal.

``counting`` is the work, ``work`` makes jobs of it, ``play`` is the course of events on the ``scene`` that ``screen``
shows, and ``verdict`` says how it came out.
"""
