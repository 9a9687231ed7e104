"""A dead letter that is brought back: from the dead letters into the queue in one script, and never in both."""

from __future__ import annotations

import asyncio

import pytest

from taskrunner.envelope import KEPT, TRACKED, Extra, Lease
from taskrunner.errors import PayloadError
from taskrunner.outcome import Succeeded
from taskrunner.store import wire
from tests.store.burying import FAILED, bring_back, fail, graveyard, in_step, standing, the_grave
from tests.store.conftest import Place, delivery

HOLD = Lease("digest", hold=True)


async def test_it_leaves_the_dead_letters_and_stands_in_the_queue_as_a_new_job(place: Place) -> None:
    await fail(place, place.draft("job", payload=b'[["x"]]', extras={Extra.HEADERS: {"a": "b"}}))
    assert await standing(place) == in_step("job")
    assert await bring_back(place, await the_grave(place, "job")) == {}
    assert await standing(place) == in_step()
    assert await place.live() == {"job": "q default"}
    assert not await place.client.exists(place.keys.job("job")), "its outcome was that of the run before"
    [arrival] = await place.fetch()
    envelope = delivery(arrival).envelope
    assert (envelope.id, envelope.task, envelope.attempt, envelope.payload) == ("job", "work", 1, b'[["x"]]')
    assert envelope.extras == {Extra.HEADERS: {"a": "b"}}
    assert envelope.flags == TRACKED | KEPT
    assert await place.client.hget(place.names.waiting, "work") == b"1"


async def test_it_begins_anew_without_crashes_unknown_times_and_an_end_that_is_past(place: Place) -> None:
    ahead = await place.now() + 1_000_000
    spent = {Extra.DELIVERIES: 3, Extra.UNKNOWN_SINCE: 5}
    await fail(
        place,
        place.draft("past", extras={**spent, Extra.EXPIRES: 1_000}),
        place.draft("ahead", extras={**spent, Extra.EXPIRES: ahead, Extra.RESERVATION: 700}),
    )
    await bring_back(place, await the_grave(place, "past"), await the_grave(place, "ahead"))
    extras = [delivery(arrival).envelope.extras for arrival in await place.fetch()]
    assert extras == [{}, {Extra.EXPIRES: ahead, Extra.RESERVATION: 700}]
    assert [fields.get(b"r") for fields in await place.entries()] == [None, b"700"]


async def test_one_that_is_gone_is_told_and_changes_nothing(place: Place) -> None:
    await fail(place, place.draft("job"))
    grave = await the_grave(place, "job")
    assert await bring_back(place, grave) == {}
    before = await place.everything()
    assert await bring_back(place, grave, worker="two") == {0: ""}
    after = await place.everything()
    assert {key: after[key] for key in before} == before


async def test_a_later_dead_letter_of_the_same_id_is_not_taken_for_the_one_that_was_read(place: Place) -> None:
    await fail(place, place.draft("job", payload=b"[[1]]"))
    old = await the_grave(place, "job")
    await place.client.zadd(place.names.dead, {"job": int(old.instant) - 1000})
    await place.client.unlink(place.keys.job("job"))
    await fail(place, place.draft("job", payload=b"[[2]]"))
    if (await the_grave(place, "job")).instant == old.instant:  # both of them in the same millisecond
        await place.client.zincrby(place.names.dead, 1, "job")
    assert await bring_back(place, old) == {0: ""}
    assert await place.entries() == []
    assert b"[[2]]" in (await the_grave(place, "job")).record


async def test_of_many_who_bring_back_the_same_one_at_once_one_does(place: Place) -> None:
    await fail(place, *(place.draft(f"job{n}") for n in range(20)))
    graves = [await the_grave(place, f"job{n}") for n in range(20)]
    told = await asyncio.gather(*(bring_back(place, *graves, worker=worker) for worker in "abcde"))
    assert sum(len(graves) - len(one) for one in told) == 20
    assert len(await place.entries()) == 20
    assert await standing(place) == in_step()


async def test_who_brings_back_and_who_deletes_the_same_one_at_once_agree(place: Place) -> None:
    ids = [f"job{n}" for n in range(20)]
    await fail(place, *(place.draft(id) for id in ids))
    graves = [await the_grave(place, id) for id in ids]
    deleting = await graveyard(place, "two")
    told = await asyncio.gather(*(bring_back(place, grave) for grave in graves), *(deleting.delete(id) for id in ids))
    brought, deleted = [one == {} for one in told[:20]], told[20:]
    assert [int(one) + int(other) for one, other in zip(brought, deleted, strict=True)] == [1] * 20
    assert len(await place.entries()) == sum(brought)
    assert await standing(place) == in_step()


async def test_it_takes_its_unique_key_again_until_it_ends(place: Place) -> None:
    await fail(place, place.draft("job", extras={Extra.UNIQUE: "digest"}, leases=(HOLD,)))
    assert not await place.client.exists(place.keys.unique("digest"))
    assert await bring_back(place, await the_grave(place, "job")) == {}
    assert await place.client.get(place.keys.unique("digest")) == b"job"
    assert await place.dispatch(place.draft(leases=(HOLD,))) == {0: "job"}
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, Succeeded(b"1")))
    assert not await place.client.exists(place.keys.unique("digest"))


async def test_it_stays_dead_while_another_job_holds_its_unique_key(place: Place) -> None:
    await fail(place, place.draft("dead", extras={Extra.UNIQUE: "digest"}, leases=(HOLD,)))
    await place.dispatch(place.draft("alive", extras={Extra.UNIQUE: "digest"}, leases=(HOLD,)))
    grave, outcome = await the_grave(place, "dead"), await place.client.get(place.keys.job("dead"))
    assert await bring_back(place, grave) == {0: "alive"}
    assert await standing(place) == in_step("dead")
    assert await place.client.get(place.keys.job("dead")) == outcome
    assert await place.live() == {"alive": "q default"}
    assert len(await place.entries()) == 1


async def test_a_unique_key_whose_holder_was_lost_is_no_hindrance(place: Place) -> None:
    await fail(place, place.draft("dead", extras={Extra.UNIQUE: "digest"}, leases=(HOLD,)))
    await place.client.set(place.keys.unique("digest"), "nobody")
    assert await bring_back(place, await the_grave(place, "dead")) == {}
    assert await place.client.get(place.keys.unique("digest")) == b"dead"


async def test_it_does_not_wait_for_the_period_in_which_it_was_unique(place: Place) -> None:
    leases = (HOLD, Lease("digest", hold=False, seconds=1000))
    await fail(place, place.draft("job", extras={Extra.UNIQUE: "digest"}, leases=leases))
    left = await place.client.pttl(place.keys.period("digest"))
    assert left > 0
    assert await bring_back(place, await the_grave(place, "job")) == {}
    assert await place.client.pttl(place.keys.period("digest")) <= left, "nor does that begin again"


async def test_it_stays_dead_while_a_job_of_its_own_id_lives(place: Place) -> None:
    await fail(place, place.draft("job"))
    await place.client.unlink(place.keys.job("job"))  # its result_ttl is over
    assert await place.dispatch(place.draft("job", custom_id=True)) == {}
    assert await bring_back(place, await the_grave(place, "job")) == {0: "job"}
    assert await standing(place) == in_step("job")
    assert len(await place.entries()) == 1


async def test_a_job_that_fails_again_takes_the_place_of_its_dead_letter(place: Place) -> None:
    await fail(place, place.draft("job", payload=b"[[1]]"))
    await place.client.zadd(place.names.dead, {"job": 1000})
    await place.client.zadd(place.names.dead_tasks, {"work\n000000000001000\njob": 0})
    await place.client.zremrangebyrank(place.names.dead_tasks, 1, -1)
    await place.client.unlink(place.keys.job("job"))
    await fail(place, place.draft("job", task="other", payload=b"[[2]]", custom_id=True))
    assert await standing(place) == in_step("job")
    dead = await graveyard(place)
    assert (await dead.count(None), await dead.count("work"), await dead.count("other")) == (1, 0, 1)
    assert wire.unseal(wire.exhume((await the_grave(place, "job")).record).letter or b"").payload == b"[[2]]"


async def test_what_was_no_job_can_not_be_brought_back(place: Place) -> None:
    await place.store()
    entry = (await place.client.xadd(place.names.stream, {"t9": "from the future"})).decode()
    [arrival] = await place.fetch()
    await place.settle("one", (arrival, FAILED))
    with pytest.raises(PayloadError, match="stays where it is"):
        (await the_grave(place, f"unreadable-{entry}")).draft(1)


@pytest.mark.parametrize(
    "text",
    [b"", b"\xff", b"[]", b"{}\n", b'["job","work"]\nx', b'["job","work","default",1,1,1,"","","","",null]\n{}'],
)
async def test_a_record_that_is_damaged_is_shown_as_it_stands_and_can_not_be_brought_back(
    place: Place, text: bytes
) -> None:
    await fail(place, place.draft("job"))
    await place.client.hset(place.names.dead_letters, "job", text)
    grave = await the_grave(place, "job")
    assert grave.letter().id == "job"
    with pytest.raises(PayloadError, match="stays where it is"):
        grave.draft(1)


async def test_a_letter_of_another_job_under_its_id_can_not_be_brought_back(place: Place) -> None:
    await fail(place, place.draft("job"), place.draft("other"))
    await place.client.hset(place.names.dead_letters, "job", (await the_grave(place, "other")).record)
    with pytest.raises(PayloadError, match="that of another job"):
        (await the_grave(place, "job")).draft(1)


async def test_among_new_jobs_of_one_batch_each_is_what_it_is(place: Place) -> None:
    await fail(place, place.draft("dead"), place.draft("gone"))
    drafts = [(await the_grave(place, id)).draft(await place.now()) for id in ("dead", "gone")]
    await (await graveyard(place)).delete("gone")
    assert await place.dispatch(place.draft("new"), *drafts, place.draft("last", delay=5)) == {2: ""}
    assert await place.live() == {"dead": "q default", "new": "q default", "last": "s default"}


async def test_foreign_data_under_the_dead_letters_stops_nothing_but_that(place: Place) -> None:
    await fail(place, place.draft("job"))
    draft = (await the_grave(place, "job")).draft(await place.now())
    await place.client.unlink(place.names.dead_tasks)
    await place.client.set(place.names.dead_tasks, "a stranger's")
    assert await place.dispatch(place.draft("new"), draft) == {1: ""}
    assert await place.live() == {"new": "q default"}
