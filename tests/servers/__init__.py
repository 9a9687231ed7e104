"""Servers for tests: alone, as a cluster, under Sentinel; of every kind that this machine can get.

``TASKRUNNER_TEST_SERVER`` says which kind the tests use: ``valkey-9.1`` (when it isn't set), ``redis-6.2``,
``redis-7.0``, ``redis-8.2``, ``valkey-8.1``, or ``testcontainers``. Every class here takes ``kind=`` too.
"""

from tests.servers.binaries import KINDS, Unavailable, chosen_kind, obtain
from tests.servers.cluster import Cluster, Node
from tests.servers.ports import free_port
from tests.servers.sentinels import Sentinels
from tests.servers.server import Server
from tests.servers.shared import in_ci, missing, shared_server

__all__ = [
    "KINDS",
    "Cluster",
    "Node",
    "Sentinels",
    "Server",
    "Unavailable",
    "chosen_kind",
    "free_port",
    "in_ci",
    "missing",
    "obtain",
    "shared_server",
]
