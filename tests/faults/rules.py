"""What the proxy does to the connections and exchanges that a test names."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field

REQUESTS, REPLIES = "requests", "replies"


@dataclass
class Loss:
    """Exchanges to break: those whose request has ``request`` in it, and whose reply, when one is given, ``reply``.

    ``way`` names what is broken, the request or the reply. ``after`` bytes of it pass; nothing else on that connection
    does: it is cut, or reset, or with ``silent`` left open and dead. What is no longer than that is left alone. The
    first ``skip`` of them are spared. ``lost`` counts.
    """

    request: bytes
    reply: bytes = b""
    times: int = 1
    silent: bool = False
    way: str = REPLIES
    after: int = 0
    reset: bool = False
    skip: int = 0
    lost: int = 0

    def wants(self, way: str, request: bytes, reply: bytes) -> bool:
        # The script that the server does not know is sent again as text: that is no reply to be lost.
        if way != self.way or self.lost == self.times or reply.startswith(b"-NOSCRIPT"):
            return False
        if self.request not in request or self.reply not in reply:
            return False
        self.skip -= 1
        return self.skip < 0


@dataclass(eq=False)
class Rule:
    """How slowly things pass on connections that have sent ``role``, one way or (None) both; with ``hole`` not at all.

    What a hole has taken in comes out of it at its end, as a network that comes back repeats what it has lost; until
    then nobody is told of anything, not even that the other side has closed the connection.
    """

    role: bytes
    way: str | None
    delay: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    hole: bool = False
    seed: int = 0
    taken: int = 0
    """Bytes that it has been applied to."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def end(self) -> None:
        self.over.set()

    async def apply(self, size: int) -> float:
        """Waits as long as so many bytes must. Returns how many bytes may pass per second."""
        self.taken += size
        if self.hole:
            await self.over.wait()
        elif self.delay or self.jitter:
            await asyncio.sleep(self.delay + self._random.uniform(0, self.jitter))
        return self.rate
