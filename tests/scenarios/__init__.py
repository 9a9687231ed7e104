"""Nine faults that every job runner meets, played with real worker processes: ``python -m tests.scenarios``.

The verdict comes from the journal that the handlers write, not from what the runner records. Settings are the
defaults, apart from a reservation of 2 s and 10 slots per worker process.
"""
