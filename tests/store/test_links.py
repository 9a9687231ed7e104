"""A link asks many things in one write, and tells apart what was answered, refused, and a stranger's."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from taskrunner import RedisError, RedisUnavailable
from taskrunner.store.links import Link
from tests.store.conftest import Place


@pytest.fixture
async def link(place: Place) -> AsyncIterator[Link]:
    """To the server; in which a stranger's list has the name of our stream."""
    link = Link(place.deployment, place.names.stream)
    await place.client.rpush(place.names.stream, "foreign")
    yield link
    await link.close()


async def test_replies_come_in_the_order_of_the_questions(link: Link, place: Place) -> None:
    questions = [(b"ECHO", b"one"), (b"LLEN", place.names.stream), (b"GET", place.names.due)]
    assert await link.ask(questions) == await link.look(questions) == [b"one", 1, None]


async def test_who_asks_nothing_needs_no_server(place: Place) -> None:
    link = Link(place.deployment, place.names.stream)
    assert await link.ask([]) == await link.look([]) == []
    assert link.connection is None


async def test_a_strangers_key_is_an_error_for_who_asks_and_nothing_for_who_looks(link: Link, place: Place) -> None:
    questions = [(b"ECHO", b"one"), (b"XLEN", place.names.stream), (b"XPENDING", place.names.due, b"group")]
    assert await link.look(questions) == [b"one", None, None]
    for question in questions[1:]:
        with pytest.raises(RedisError):
            await link.ask([question])


async def test_what_the_server_refuses_is_an_error_for_both(link: Link) -> None:
    for way in (link.ask, link.look):
        with pytest.raises(RedisUnavailable, match="wrong number of arguments"):
            await way([(b"ECHO", b"one"), (b"ECHO",)])
        assert await way([(b"ECHO", b"two")]) == [b"two"], "the connection still serves"
