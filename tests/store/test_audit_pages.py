"""audit.lua goes page by page and turn by turn, counts, and is led astray by nothing that strangers write."""

from __future__ import annotations

import orjson
import pytest

from taskrunner.errors import RedisConfigurationError
from taskrunner.outcome import Succeeded
from tests.store.auditing import audit, dead, end_grace, lose_worker, outcome, queued, turn
from tests.store.conftest import Place

# -- counts ----------------------------------------------------------------------------------------------------------


async def test_counts_of_deleted_entries_are_forgotten_when_the_queue_is_empty(place: Place) -> None:
    await place.dispatch(*(place.draft() for _ in range(5)))
    arrivals = await place.fetch("one", 2)
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    await audit(place)
    assert await place.client.hget(place.names.waiting, "work") == b"5", "two of them run"
    await place.settle("one", *((one, Succeeded(b"1")) for one in arrivals))
    await audit(place)
    assert not await place.client.exists(place.names.waiting)


# -- pages and turns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [120, 700])  # a hash that HSCAN gives whole, and one that it gives in parts
async def test_a_page_is_small_and_all_pages_together_see_everything(place: Place, count: int) -> None:
    for start in range(0, count, 100):
        await place.dispatch(*(place.draft(f"job{n:03}") for n in range(start, min(start + 100, count))))
    await place.client.xtrim(place.names.stream, maxlen=0, approximate=False)
    auditor, cursor, seen = (await place.store()).auditor(place.keys), "", list[int]()
    while not seen or cursor:
        page = await auditor.page("mend", cursor)
        seen.append(len(page.orphaned))
        cursor = page.cursor
    assert max(seen) <= 100
    assert sum(seen) == count
    assert await place.live() == {}


async def test_a_page_puts_back_few_entries_however_many_are_cut_off(place: Place) -> None:
    for _ in range(5):
        await place.dispatch(*(place.draft(flags=0) for _ in range(100)))
    await place.fetch("one", 500)
    await lose_worker(place)
    auditor, cursor, seen = (await place.store()).auditor(place.keys), "", list[int]()
    while not seen or cursor:
        page = await auditor.page("mend", cursor)
        seen.append(len(page.readded))
        cursor = page.cursor
    assert max(seen) <= 100
    assert sum(seen) == 500


async def test_large_letters_make_small_pages(place: Place) -> None:
    for start in range(0, 40, 10):
        await place.dispatch(*(place.draft(payload=b"x" * 100_000) for _ in range(start, start + 10)))
    assert (await audit(place, "look")).pages >= 4
    await place.fetch("one")
    await lose_worker(place)
    found = await audit(place)
    assert found.pages >= 4
    assert len(found.readded) == 40


async def test_a_look_changes_nothing_and_sees_the_same(place: Place) -> None:
    await queued(place)
    await place.dispatch(*(place.draft(f"job{n}") for n in range(3)))
    await place.fetch("one")
    await lose_worker(place)
    before = await place.everything()
    seen = await audit(place, "look")
    assert await place.everything() == before
    mended = await audit(place)
    assert (seen.readded, seen.orphaned) == (mended.readded, mended.orphaned)
    assert seen.orphaned == {"lost"}


async def test_one_worker_does_a_pass_and_the_next_pass_comes_when_it_is_due(place: Place) -> None:
    await place.store("one")
    await place.dispatch(*(place.draft(f"job{n:03}") for n in range(200)))
    await end_grace(place)
    first = await turn(place, "two")
    assert first.cursor != ""
    assert first.wait == 0
    other = await turn(place, "three")
    assert (other.cursor, other.readded) == ("", [])
    assert 0 < other.wait <= 20
    while (page := await turn(place, "two")).cursor:
        assert page.wait == 0
    assert page.wait == 20, "eight beats of two and a half seconds"
    assert 0 < (await turn(place, "two")).wait <= 20
    await place.client.hset(place.keys.janitor, "audit-next", await place.now())
    assert (await turn(place, "three")).cursor != ""


async def test_a_pass_whose_worker_is_gone_goes_on_where_it_was(place: Place) -> None:
    await place.dispatch(*(place.draft(f"job{n:03}") for n in range(200)))
    await end_grace(place)
    page = await turn(place, "two")
    await place.client.hset(place.keys.janitor, "audit-next", await place.now())
    await turn(place, "three")
    assert await place.client.hget(place.keys.janitor, "auditor") == b"three"
    assert await place.client.hget(place.keys.janitor, "audit") != page.cursor.encode()


async def test_a_turn_that_a_stepped_clock_has_put_far_ahead_is_taken(place: Place) -> None:
    await place.store("two")
    await end_grace(place)
    await place.client.hset(place.keys.janitor, mapping={"auditor": "gone", "audit-next": await place.now() + 10**8})
    assert (await turn(place)).wait == 20


async def test_nothing_is_judged_while_the_fleet_comes_back_from_an_outage(place: Place) -> None:
    await queued(place)
    await place.client.hset(place.keys.janitor, mapping={"last": await place.now() - 60_000, "grace": 0})
    page = await turn(place)
    assert page.orphaned == []
    assert page.wait > 5, "two beats and a second"
    assert "lost" in await place.live()
    await end_grace(place)
    assert [id for _, id in (await turn(place)).orphaned] == ["lost"]


@pytest.mark.parametrize("cursor", ["x", "stream nobody 1-0", "stream default x", "live default 1", "due  3", "  "])
async def test_a_cursor_that_makes_no_sense_begins_anew(place: Place, cursor: str) -> None:
    await queued(place)
    await end_grace(place)
    await place.client.hset(place.keys.janitor, mapping={"audit": cursor, "audit-next": "soon"})
    found = await turn(place)
    assert [id for _, id in found.orphaned] == ["lost"]


# -- what strangers write -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", ["", "q", "q default", "q default soon", "q nobody 1-0", "x default 1-0", "q  1-0"])
async def test_a_live_record_that_makes_no_sense_is_left_alone(place: Place, record: str) -> None:
    await place.dispatch(place.draft())
    await place.client.hset(place.keys.live, "strange", record)
    before = await place.everything()
    assert (await audit(place)).orphaned == set()
    assert await place.everything() == before


async def test_a_queue_with_foreign_data_is_passed_over_and_the_others_are_not(place: Place) -> None:
    await queued(place)
    await place.client.sadd(place.keys.queues, "another")
    await place.client.set(place.keys.queue("another").due, "a stranger's")
    await place.client.hset(place.keys.live, "theirs", "q another 1-0")
    assert (await audit(place)).orphaned == {"lost"}
    assert "theirs" in await place.live()


async def test_foreign_data_under_a_key_of_the_partition_is_told(place: Place) -> None:
    await place.store("two")
    await place.client.set(place.keys.live, "a stranger's")
    with pytest.raises(RedisConfigurationError, match="foreign data under our keys"):
        await audit(place)


async def test_a_letter_with_a_hostile_head_is_kept_as_it_is(place: Place) -> None:
    await place.dispatch(place.draft(delay=100))
    heads = [b'["a","b",1e400,3]', b'["a","b",-1,3]', b'["a","b",1,3,1,"x"]', b'["a","b",1,3,1e300]', b"[" * 2000, b"7"]
    for n, head in enumerate(heads):
        text = b"task\n\nt1\n" + head + b"\n[[]]"
        await place.client.hset(place.names.letters, f"hostile{n}", text)
    assert (await audit(place)).orphaned == {f"hostile{n}" for n in range(len(heads))}
    for n, head in enumerate(heads):
        assert (await dead(place, f"hostile{n}")).raw == [b"task\n\nt1\n" + head + b"\n[[]]"]
        orjson.dumps((await outcome(place, f"hostile{n}")).error)
