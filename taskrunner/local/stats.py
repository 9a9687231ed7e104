"""PoolStats: how many tasks of a worker pool are in which state."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A worker pool at one instant.

    ``created``: tasks whose ``submit`` waits for a worker; one that gives up counts no more. ``pending`` and
    ``started``: tasks in progress, each with one of the ``active_workers``, of which there are ``max_workers``.
    ``done``, ``failed`` and ``canceled`` count what has ended since the pool was made. ``total`` is the sum of these
    six. ``stopped``: it takes no more tasks.
    """

    total: int
    created: int
    pending: int
    started: int
    done: int
    failed: int
    canceled: int
    max_workers: int
    active_workers: int
    stopped: bool
