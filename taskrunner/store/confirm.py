"""Confirmed batches: a dispatch that waits until a replica, or the server's disk, has its jobs.

WAIT and WAITAOF tell of the last write of the connection that they come on, so each goes out with its script call, in
one write on that connection. On another connection, or inside MULTI, they confirm what is on no disk. And they come
back when their time is over, too: what counts are the counts. All jobs of a batch share one wait.

What is confirmed with one durability has a link and a batch key of its own, so that nobody else's jobs wait for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from redis import exceptions as theirs

from ..durability import Durability
from ..errors import RedisConfigurationError
from .batches import Batches
from .links import CALL_TIMEOUT, Link
from .scripts import Script
from .translate import Unanswered, translate

CONFIRM_TIMEOUT = 5.0
"""Seconds that the server may wait for a confirmation. A replica takes milliseconds to say that it has something; a
disk that is synced each second, up to two."""
_MILLISECONDS = round(CONFIRM_TIMEOUT * 1000)


class Unconfirmed(Unanswered):
    """The script was carried out, with this reply, and what was to be confirmed of its writes was not in time."""

    def __init__(self, told: str, reply: Any) -> None:
        super().__init__(told)
        self.reply = reply


class Confirmation(ABC):
    """One way to have writes confirmed."""

    probe: tuple[Any, ...]
    """Asks, before anything is written, whether the server can do it at all."""
    command: tuple[Any, ...]
    """Goes out behind the script call."""
    missing: str
    """What is said when the counts are too low."""

    @abstractmethod
    def check(self, reply: Any) -> Confirmation:
        """Judges the reply to ``probe``. Returns what to use on this server. Raises RedisError."""

    @abstractmethod
    def confirmed(self, reply: Any) -> bool:
        """Judges the reply to ``command``, which is no error."""


class Replicated(Confirmation):
    """A replica has received it."""

    probe = (b"ROLE",)
    command = (b"WAIT", 1, _MILLISECONDS)
    missing = f"no replica confirmed it within {CONFIRM_TIMEOUT:g} s"

    def check(self, reply: Any) -> Confirmation:
        # When it may not be asked (ACL), or is a replica by now, the call itself tells.
        if isinstance(reply, list) and reply[0] == b"master" and not reply[2]:
            raise RedisConfigurationError(
                "durability='replicated' needs a replica that is connected, and this server has none now; attach one, "
                "or dispatch with another durability. Nothing was written."
            )
        return self

    def confirmed(self, reply: Any) -> bool:
        return int(reply) >= 1


class Fsynced(Confirmation):
    """It is on the disk of the server, by WAITAOF: Redis 7.2 and Valkey."""

    probe = (b"WAITAOF", 1, 0, 1)
    command = (b"WAITAOF", 1, 0, _MILLISECONDS)
    missing = f"the server did not confirm within {CONFIRM_TIMEOUT:g} s that it is on its disk"

    def check(self, reply: Any) -> Confirmation:
        if not isinstance(reply, theirs.ResponseError):
            return self
        told = str(reply).lower()
        if "unknown command" in told:
            return ALWAYS_FSYNCED
        if "appendonly" in told:
            raise RedisConfigurationError(
                "durability='fsynced' needs an append-only file, and this server keeps none; set `appendonly yes` "
                "(best with `appendfsync always`), or dispatch with another durability. Nothing was written."
            )
        if "replica" in told:
            return self  # the script's reply says the same, and then the primary is looked for
        raise translate(reply)

    def confirmed(self, reply: Any) -> bool:
        return int(reply[0]) >= 1


class AlwaysFsynced(Confirmation):
    """The same on older servers: one that syncs before each reply has confirmed by replying. So it is asked whether
    that is how it is set, also in the same write as the script call: settings can be changed while it runs."""

    probe = command = (b"CONFIG", b"GET", b"*append*")
    missing = "the server was set to sync its append-only file later than at each write"
    settings: ClassVar = {b"appendonly": b"yes", b"appendfsync": b"always", b"no-appendfsync-on-rewrite": b"no"}

    def check(self, reply: Any) -> Confirmation:
        if isinstance(reply, theirs.ResponseError) or not self.confirmed(reply):
            seen = f"may not be asked for them ({reply})" if isinstance(reply, theirs.ResponseError) else "has others"
            raise RedisConfigurationError(
                "durability='fsynced' on a server without WAITAOF (before Redis 7.2) needs `appendonly yes`, "
                f"`appendfsync always` and `no-appendfsync-on-rewrite no`, and this one {seen}; set them and allow "
                "CONFIG GET, or dispatch with another durability. Nothing was written."
            )
        return self

    def confirmed(self, reply: Any) -> bool:
        return dict(zip(reply[::2], reply[1::2], strict=True)).items() >= self.settings.items()


ALWAYS_FSYNCED = AlwaysFsynced()
CONFIRMATIONS: dict[Durability, Confirmation] = {
    Durability.REPLICATED: Replicated(),
    Durability.FSYNCED: Fsynced(),
}


class ConfirmedBatches(Batches):
    """Batches that are taken only when their writes are confirmed."""

    def __init__(self, link: Link, key: str, durability: Durability) -> None:
        super().__init__(link, key)
        self._wanted = CONFIRMATIONS[durability]
        self._used = self._wanted
        self._checked: object = None

    async def send(self, script: Script, keys: list[str], arguments: list[Any], patience: float) -> Any:
        """As its parent's; raises Unconfirmed when the batch was taken and the confirmation did not come."""
        reply, confirmed = await super().send(script, keys, arguments, patience)
        if not confirmed:
            raise Unconfirmed(self._used.missing, reply)
        return reply

    async def _run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        if self._checked is None or self._link.connection is not self._checked:
            await self._check()
        timeout = CALL_TIMEOUT + CONFIRM_TIMEOUT
        reply, told = await self._link.run_with(script, keys, arguments, self._used.command, timeout=timeout)
        if isinstance(told, theirs.ResponseError):
            # Written and not confirmed: demoted in this instant, or set differently while it ran. Sent again it is
            # answered by whoever is the primary now, after a new check.
            self._checked = None
            raise Unanswered(f"it could not be confirmed: {translate(told)}")
        return reply, self._used.confirmed(told)

    async def _check(self) -> None:
        """Once per connection: refuses what the server can't do, before anything is written."""
        self._used = self._wanted
        while True:
            # Behind a command with a key, so that a cluster's redirection leads to the node that will be asked.
            key, told = await self._link.exchange([(b"EXISTS", self._key), self._used.probe])
            if isinstance(key, theirs.ResponseError):
                raise translate(key)
            before, self._used = self._used, self._used.check(told)
            if self._used is before:
                break
        self._checked = self._link.connection
