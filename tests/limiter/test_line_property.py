"""Any mixture of calls: who holds and who waits is what a list and a dictionary in one process say."""

from __future__ import annotations

import random

import pytest

from taskrunner import Limiter
from taskrunner.slot import Caller
from taskrunner.store.slots import Answer, Kind
from tests.limiter.books import Books
from tests.limiter.conftest import MakeLimiter

LIMIT = 3
IDS = [f"id {n}" for n in range(7)]


class Model:
    """A limiter without a server: id → ticket of who holds, and those who wait, in their order."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.line: list[tuple[str, str]] = []
        self._places: dict[str, int] = {}

    def _line_up(self, ticket: str, id: str) -> None:
        if (ticket, id) not in self.line:
            self.line.append((ticket, id))
            self.line.sort(key=lambda one: self._places[one[0]])

    def _fits(self, id: str) -> bool:
        return len(self.held) < LIMIT and id not in self.held

    def hand_out(self) -> None:
        for ticket, id in list(self.line):
            if self._fits(id):
                self.held[id] = ticket
                self.line.remove((ticket, id))

    def ask(self, kind: Kind, id: str, ticket: str, *, has_place: bool) -> bool:
        if has_place and self.held.get(id) != ticket:
            self._line_up(ticket, id)
        self.hand_out()
        if self.held.get(id) != ticket and self._fits(id):
            self.held[id] = ticket
        if self.held.get(id) == ticket:
            return True
        if kind is Kind.ASK and (ticket, id) not in self.line:
            self._places[ticket] = max(self._places.values(), default=0) + 1
            self._line_up(ticket, id)
        if kind is Kind.LAST and (ticket, id) in self.line:
            self.line.remove((ticket, id))
        return False

    def end(self, kind: Kind, id: str, ticket: str) -> bool:
        """``ticket`` or, without its number, that of a Limiter object."""
        has = self.held.get(id, "").startswith(ticket) and id in self.held
        if kind is Kind.LEAVE:
            has = self.held.get(id) == ticket
            self.line = [one for one in self.line if one[0] != ticket]
        if has and kind is not Kind.RENEW:
            del self.held[id]
        self.hand_out()
        return has


async def seen(books: Books) -> tuple[dict[str, str], list[str]]:
    alive = await books.client.zrangebyscore(books.slots, f"({await books.now()}", "+inf")
    owners = {id.decode(): owner.decode() for id, owner in (await books.client.hgetall(books.owners)).items()}
    line = await books.client.zrange(books.queue, 0, -1)
    return {id.decode(): owners[id.decode()].split()[0] for id in alive}, [one.decode() for one in line]


class Story:
    """One sequence of calls by four Limiter objects, drawn from a seed."""

    def __init__(self, seed: int, limiters: list[Limiter], books: Books) -> None:
        self.chance = random.Random(seed)
        self.callers: list[Caller] = [one._caller for one in limiters]
        self.books = books
        self.model = Model()
        self.tickets: list[tuple[Caller, str, str, str]] = []
        """Those that asked: their ticket, their id and their place."""

    async def step(self) -> None:
        drawn = self.chance.random()
        if drawn < 0.1 and self.model.held:
            id = self.chance.choice(sorted(self.model.held))
            await self.books.end(id)
            del self.model.held[id]
            return
        if drawn < 0.5 or not self.tickets:
            caller, id = self.chance.choice(self.callers), self.chance.choice(IDS)
            await self.ask(self.chance.choice([Kind.TRY, Kind.ASK, Kind.ASK]), caller, id, caller.ticket(), "")
        elif drawn < 0.7:
            caller, id, ticket, place = self.chance.choice(self.tickets)
            await self.ask(self.chance.choice([Kind.ASK, Kind.LAST]), caller, id, ticket, place)
        else:
            kind = self.chance.choice([Kind.LEAVE, Kind.RELEASE, Kind.RELEASE, Kind.RENEW])
            caller, id, ticket, _ = self.chance.choice(self.tickets)
            name = ticket if kind is Kind.LEAVE else caller.token
            answer = await caller.ask(caller.call(kind, id, name))
            assert answer.grant == self.model.end(kind, id, name)
            if kind is Kind.LEAVE:
                self.tickets = [one for one in self.tickets if one[2] != ticket]

    async def ask(self, kind: Kind, caller: Caller, id: str, ticket: str, place: str) -> None:
        self.tickets = [one for one in self.tickets if one[2] != ticket]
        answer: Answer = await caller.ask(caller.call(kind, id, ticket, place))
        assert (answer.grant > 0) == self.model.ask(kind, id, ticket, has_place=place != "")
        if kind is Kind.ASK:
            self.tickets.append((caller, id, ticket, answer.place))


@pytest.mark.parametrize("seed", range(12))
async def test_any_mixture_of_calls_is_what_a_model_says(seed: int, make_limiter: MakeLimiter, books: Books) -> None:
    story = Story(seed, [make_limiter(limit=LIMIT) for _ in range(4)], books)
    waited = 0
    for _ in range(250):
        await story.step()
        held, line = await seen(books)
        assert held == story.model.held
        assert line == [ticket for ticket, _ in story.model.line]
        waited += len(line)
    assert waited > 100
