"""The server that all tests of one process share."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from taskrunner import embedded
from tests.servers.binaries import DEFAULT, Unavailable, chosen_kind
from tests.servers.server import Server

IMAGE = "valkey/valkey:9.1"
"""What a container runs unless ``TASKRUNNER_TEST_IMAGE`` names another image of a Redis or Valkey."""
DEADLINE = 60.0
"""Seconds until the server in a container must answer."""


def in_ci() -> bool:
    """Whether a server that can't be had is a failure, and not a reason to skip."""
    return os.environ.get("CI", "").lower() in ("1", "true")


@contextmanager
def missing() -> Iterator[None]:
    """Makes a skipped test of a server that can't be had, and a failed one under ``CI=true``."""
    try:
        yield
    except Unavailable as error:
        if in_ci():
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


@contextmanager
def shared_server() -> Iterator[str]:
    """The URL of a server that lives as long as the context. Raises Unavailable.

    It is the one in ``TASKRUNNER_TEST_URL``, or one of the kind that ``TASKRUNNER_TEST_SERVER`` names; the embedded one
    when nothing is named.
    """
    url = os.environ.get("TASKRUNNER_TEST_URL")
    if url:
        yield url
    elif os.environ.get("TASKRUNNER_TEST_SERVER") == "testcontainers":
        with container() as url:
            yield url
    elif chosen_kind() == DEFAULT:
        yield embedded.locate("embedded://")
    else:
        with tempfile.TemporaryDirectory(prefix="taskrunner-server-") as folder:
            server = Server(Path(folder))
            server.start_blocking()
            try:
                yield server.url
            finally:
                server.kill()


@contextmanager
def container() -> Iterator[str]:
    """The URL of a server in a container. Raises Unavailable without Docker, or without its image."""
    try:
        from docker.errors import DockerException
        from requests.exceptions import RequestException
        from testcontainers.core.container import DockerContainer
    except ImportError as error:
        raise Unavailable(f"testcontainers is not installed ({error}); pip install 'testcontainers>=4.8'") from error
    image = os.environ.get("TASKRUNNER_TEST_IMAGE") or IMAGE
    problem = ""
    try:
        started = DockerContainer(image).with_exposed_ports(6379).start()
    except (DockerException, RequestException, OSError) as error:
        problem = f"testcontainers can't start {image}: {error}. Is Docker running, and may you use it?"
    if problem:
        with warnings.catch_warnings():
            # Docker's client leaves the socket open that it tried to connect, and warnings are errors here.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        raise Unavailable(problem)
    try:
        host, port = started.get_container_host_ip(), int(started.get_exposed_port(6379))
        wait_for_pong(host, port)
        yield f"redis://{host}:{port}/0"
    finally:
        started.stop()


def wait_for_pong(host: str, port: int) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        try:
            with socket.create_connection((host, port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                if connection.recv(64).startswith(b"+PONG"):
                    return
        except OSError:
            pass  # the port is open before the server behind it is
        time.sleep(0.05)
    raise Unavailable(f"the server in the container did not answer at {host}:{port} within {DEADLINE:.0f} s")
