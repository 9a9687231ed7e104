"""Chaos: random work on several worker processes under random faults, and an account of it that is kept outside Redis.

    python -m tests.chaos --seed 7 --minutes 2 --seeds 4

``plan`` makes a workload and a schedule of faults out of a seed; ``tasks``, ``worker`` and ``producer`` are what runs
in processes of their own, and write ``journal``s; ``stage`` holds the server, the proxies and the processes, and
``faults`` spoils them; ``history`` reads the journals, ``oracle`` holds them against the invariants, ``states`` tells
which interesting states occurred, ``story`` tells all that is known of one job. ``run`` puts it together.
``crowd`` is another run on the same stage: thousands of jobs before a few locks.
"""
