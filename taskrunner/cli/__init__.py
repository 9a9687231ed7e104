"""The command line (extra ``cli``). ``app`` is its door, ``commands`` what can be typed; ``supervisor`` starts the
processes that ``worker`` is, ``stats`` shows queues, ``demo`` shows everything at work."""
