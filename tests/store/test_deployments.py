"""Which server a URL or a client stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio
from redis.asyncio.sentinel import Sentinel

from taskrunner import RedisConfigurationError, RedisUnavailable, TaskRunner
from taskrunner.store.connect import connect
from taskrunner.store.deployment import ClusterNodes, OneServer, SentinelService
from tests.servers import free_port


def test_a_sentinel_url_names_hosts_service_and_database() -> None:
    made = connect("redis+sentinel://ann:se%2Fcret@h1,h2:7000,[::1]:7001/my%20service/5")
    assert isinstance(made, SentinelService)
    assert made._service == "my service"
    hosts = [(one.arguments["host"], one.arguments["port"]) for one in made._sentinels]
    assert hosts == [("h1", 26379), ("h2", 7000), ("::1", 7001)]
    login = made._primary.arguments
    assert (login["username"], login["password"], login["db"]) == ("ann", "se/cret", 5)
    assert made._primary.kind == "tcp"
    assert not {"username", "password", "db"} & made._sentinels[0].arguments.keys()


def test_the_sentinels_have_a_login_of_their_own() -> None:
    made = connect("rediss+sentinel://:data@h1/s?sentinel_username=eve&sentinel_password=watch&ssl_cert_reqs=none")
    assert isinstance(made, SentinelService)
    sentinel = made._sentinels[0]
    assert (sentinel.kind, made._primary.kind) == ("tls", "tls")
    assert (sentinel.arguments["username"], sentinel.arguments["password"]) == ("eve", "watch")
    assert sentinel.arguments["ssl_cert_reqs"] == "none"
    assert made._primary.arguments["password"] == "data"
    assert "sentinel_password" not in made._primary.arguments


def test_a_cluster_url_names_any_of_its_nodes() -> None:
    made = connect("redis+cluster://ann:secret@h1,h2:7000")
    assert isinstance(made, ClusterNodes)
    assert made._seeds == [("h1", 6379), ("h2", 7000)]
    assert made.at("h3", 1).arguments["password"] == "secret"


def test_a_ready_cluster_client_gives_its_nodes_and_its_login() -> None:
    client = redis.asyncio.RedisCluster(host="h1", port=7000, password="secret", decode_responses=True)
    made = connect(client)
    assert isinstance(made, ClusterNodes)
    assert made._seeds == [("h1", 7000)]
    assert made._login.arguments["password"] == "secret"
    assert made._login.kind == "tcp"
    tls = connect(redis.asyncio.RedisCluster(host="h1", port=7000, ssl=True, ssl_cert_reqs="none"))
    assert isinstance(tls, ClusterNodes)
    assert (tls._login.kind, tls._login.arguments["ssl_cert_reqs"]) == ("tls", "none")


def test_a_client_that_sentinel_made_gives_the_sentinels_and_both_logins() -> None:
    watchers = Sentinel([("h1", 26379), ("h2", 7000)], sentinel_kwargs={"password": "watch"}, password="data", db=3)
    made = connect(watchers.master_for("orders"))
    assert isinstance(made, SentinelService)
    assert made._service == "orders"
    assert [(one.arguments["host"], one.arguments["password"]) for one in made._sentinels] == [
        ("h1", "watch"),
        ("h2", "watch"),
    ]
    assert (made._primary.arguments["password"], made._primary.arguments["db"]) == ("data", 3)
    with pytest.raises(RedisConfigurationError, match="master_for"):
        connect(watchers.slave_for("orders"))


def test_one_server_stays_what_it_was() -> None:
    assert isinstance(connect("redis://localhost:6379/5"), OneServer)
    assert isinstance(connect(redis.asyncio.Redis(port=6380)), OneServer)


@pytest.mark.parametrize(
    "url",
    [
        "redis+sentinel://h1:26379",
        "redis+sentinel://h1/",
        "redis+sentinel://h1/service/five",
        "redis+sentinel:///service",
        "redis+sentinel://:secret-word@h1:port/service",
        "redis+cluster://",
        "redis+cluster://h1,,h2",
        "redis+cluster://:secret-word@h1:99999999",
        "redis+cluster://h1/3",
        "redis+http://h1",
        "unix+cluster://h1",
    ],
)
def test_a_url_that_can_not_be_used_is_one_clear_line_without_the_secret(url: str) -> None:
    with pytest.raises(RedisConfigurationError) as raised:
        connect(url)
    assert "secret-word" not in str(raised.value)


def test_no_other_object_is_taken_for_a_client() -> None:
    with pytest.raises(RedisConfigurationError, match="RedisCluster"):
        connect(object())


@pytest.mark.parametrize("kind", ["sentinel", "cluster"])
async def test_when_nobody_of_them_answers_it_is_an_outage(kind: str, make_runner: Callable[..., TaskRunner]) -> None:
    hosts = ",".join(f"127.0.0.1:{free_port()}" for _ in range(3))
    runner = make_runner(f"redis+{kind}://{hosts}/" + ("service" if kind == "sentinel" else ""))
    with pytest.raises(RedisUnavailable):
        async with runner.start(fail_fast=True):
            pass


async def test_a_service_that_the_sentinel_does_not_know_is_a_configuration_error(
    make_runner: Callable[..., TaskRunner], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.store.deployment._ask", lambda *question: None)
    runner = make_runner("redis+sentinel://h1/no-such-service")
    with pytest.raises(RedisConfigurationError, match="no-such-service"):
        async with runner.start():
            pass


async def test_a_cluster_where_nobody_has_the_slot_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    rows: list[Any] = [[0, 5, [b"10.0.0.1", 7000, b"id"]], [6, 16383, [b"", 7001, b"id"]]]
    monkeypatch.setattr("taskrunner.store.deployment._ask", lambda *question: rows)
    made = connect("redis+cluster://h1:7000")
    found = await made.target("taskrunner:{a.0}:")
    assert (found.arguments["host"], found.arguments["port"]) == ("h1", 7001), "a node without a name is the one asked"
    rows.pop()
    made = connect("redis+cluster://h1:7000")
    with pytest.raises(RedisUnavailable, match="no node"):
        await made.target("taskrunner:{a.0}:")
