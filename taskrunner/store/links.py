"""Links: connections. Each role has its own, does one call at a time on it, and sets every option that redis-py would
choose.

Why not a client: redis-py 8 sends each command again up to ten times after a timeout, and an XADD that is sent again is
a second job; its pool shares connections between a blocking read and a heartbeat; its cluster client sends ASKING on
one connection and the command on another. What is sent again here, is sent by us, and numbered (``batches.Batches``).
"""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
from redis import exceptions as theirs

from .deployment import Deployment
from .scripts import Script
from .translate import Redirection, redirection, translate

CALL_TIMEOUT = 10.0
"""Seconds after which a call that got no answer has failed. A script takes milliseconds; this is for dead networks."""
REDIRECTIONS = 5
"""Times that one call follows a cluster's MOVED or ASK; a slot that moves on faster than that is an outage."""

FOREIGN = ("WRONGTYPE", "NOGROUP")
"""How the replies begin to questions about a key that holds a stranger's data, and about a stream without a group."""

_FAILURES = (theirs.RedisError, OSError, TimeoutError, asyncio.IncompleteReadError, EOFError)


class Link:
    """One connection for one role: one call at a time, opened when needed, never shared with a blocking reader.

    ``key`` is any key of the partition that it is for: on a cluster it says which node that is.
    """

    def __init__(self, deployment: Deployment, key: str) -> None:
        self._deployment = deployment
        self._key = key
        self._connection: Any = None
        self._turn = asyncio.Lock()
        self._failed = False
        self.client_id: int | None = None

    async def call(self, *command: Any, timeout: float = CALL_TIMEOUT) -> Any:
        """One command, one attempt. Raises RedisError; after any failure but an error reply the connection is new."""
        [reply] = await self.exchange([command], timeout)
        if isinstance(reply, theirs.NoScriptError):
            raise reply
        if isinstance(reply, theirs.ResponseError):
            raise translate(reply)
        return reply

    async def ask(self, commands: list[Any], timeout: float = CALL_TIMEOUT) -> list[Any]:
        """Any number of commands in one write, and their replies. Raises RedisError when one of them was refused."""
        return [_sound(reply) for reply in await self.exchange(commands, timeout)] if commands else []

    async def look(self, commands: list[Any], timeout: float = CALL_TIMEOUT) -> list[Any]:
        """As ``ask``, for looking at keys that may hold a stranger's data, of which the doctor tells: None there."""
        replies = await self.exchange(commands, timeout) if commands else []
        return [None if _is_foreign(reply) else _sound(reply) for reply in replies]

    async def run(self, script: Script, keys: list[str], arguments: list[Any], timeout: float = CALL_TIMEOUT) -> Any:
        """One script, by its SHA, and by its text when the server doesn't know it."""
        try:
            return await self.call(b"EVALSHA", script.sha, len(keys), *keys, *arguments, timeout=timeout)
        except theirs.NoScriptError:
            return await self.call(b"EVAL", script.text, len(keys), *keys, *arguments, timeout=timeout)

    async def run_with(
        self, script: Script, keys: list[str], arguments: list[Any], further: Any, timeout: float
    ) -> list[Any]:
        """One script and in the same write a further command: their replies, an error reply to that as a value."""
        replies: list[Any] = []
        for name, code in ((b"EVALSHA", script.sha), (b"EVAL", script.text)):
            replies = await self.exchange([(name, code, len(keys), *keys, *arguments), further], timeout)
            if not isinstance(replies[0], theirs.NoScriptError):
                break
        if isinstance(replies[0], theirs.ResponseError):
            raise translate(replies[0])
        return replies

    @property
    def connection(self) -> Any:
        """The connection: another object after each reconnect, None while there is none that works."""
        return self._connection if self._connection is not None and _alive(self._connection) else None

    async def exchange(self, commands: list[Any], timeout: float = CALL_TIMEOUT) -> list[Any]:
        """Commands in one write, on one connection and in this order; their replies, error replies as values.

        All go where the first one belongs: a reply of MOVED or ASK to it says that nothing was done, and they are
        sent there.
        """
        replies: list[Any] = []
        async with self._turn:
            sent = False
            try:
                async with asyncio.timeout(timeout):
                    for _ in range(REDIRECTIONS):
                        connection = self.connection
                        if connection is None:
                            sent = False
                            connection = await self._open()
                        sent = True
                        replies = await _exchange(connection, commands)
                        there = redirection(replies[0])
                        if there is None:
                            break
                        if not there.moved:
                            return await self._ask(there, commands)
                        await self._drop()
                        self._deployment.moved(self._key, there.host, there.port)
                        self._failed = False  # it was told where to go, there is nothing to search for
            except _FAILURES as error:
                await self._drop()
                raise translate(error, sent=sent) from None
            except (asyncio.CancelledError, Exception):  # such as too deep a recursion, in the middle of reading
                await self._drop()  # an unread reply must never meet the next caller
                raise
            for reply in replies:
                if isinstance(reply, theirs.ResponseError) and _role_changed(reply):
                    await self._drop()  # look for the primary anew
            return replies

    async def _ask(self, there: Redirection, commands: list[Any]) -> list[Any]:
        """The slot is on its way to another node, and our key has gone already. ASKING holds for one command, on the
        same connection; the slot itself is still the old node's, so this connection serves once."""
        connection = self._deployment.at(there.host, there.port).asynchronous()
        try:
            await connection.connect()
            asking = [part for command in commands for part in ((b"ASKING",), command)]
            return (await _exchange(connection, asking))[1::2]
        finally:
            await connection.disconnect(nowait=True)

    async def open(self) -> None:
        """Connects now."""
        await self.call(b"PING")

    async def identify(self) -> int:
        """The connection's id on the server, for CLIENT UNBLOCK."""
        self.client_id = int(await self.call(b"CLIENT", b"ID"))
        return self.client_id

    async def _open(self) -> Any:
        if self._connection is not None:
            await self._drop()  # the server has closed it, and its socket is still open here
        target = await self._deployment.target(self._key, again=self._failed)
        self._connection = target.asynchronous()
        self.client_id = None
        self._failed = True
        await self._connection.connect()
        self._failed = False
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection, self.client_id = self._connection, None, None
        if connection is not None:
            self._failed = True
            try:
                await connection.disconnect(nowait=True)
            except (theirs.RedisError, OSError, RuntimeError):
                pass

    async def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                async with asyncio.timeout(1):
                    await connection.disconnect()
            except (theirs.RedisError, OSError, TimeoutError, RuntimeError):
                pass


def _alive(connection: Any) -> bool:
    """Whether it is open as far as is known here. What is written to one that the server has closed was never sent, and
    its caller need not be told that it may have been carried out."""
    reader = connection._reader
    return reader is not None and reader.exception() is None and not reader.at_eof()


def _sound(reply: Any) -> Any:
    if isinstance(reply, theirs.ResponseError):
        raise translate(reply)
    return reply


def _is_foreign(reply: Any) -> bool:
    return isinstance(reply, theirs.ResponseError) and str(reply).startswith(FOREIGN)


async def _exchange(connection: Any, commands: list[Any]) -> list[Any]:
    await connection.send_packed_command([pack(*command) for command in commands], check_health=False)
    replies: list[Any] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except theirs.ResponseError as error:
            replies.append(error)
    return replies


def _role_changed(error: theirs.ResponseError) -> bool:
    # By class: the client takes the code off the texts it knows. In the text: 6.2 wraps a script's errors.
    if isinstance(error, (theirs.ReadOnlyError, theirs.MasterDownError)) or redirection(error):
        return True
    return "-READONLY" in str(error) or str(error).startswith("UNBLOCKED")


class BlockingLink:
    """The same for a thread: a blocking connection, so that a busy event loop can't hold up what it says."""

    def __init__(self, deployment: Deployment, key: str, timeout: float) -> None:
        self._deployment = deployment
        self._key = key
        self._timeout = timeout
        self._connection: Any = None

    def run(self, script: Script, keys: list[str], arguments: list[Any]) -> Any:
        try:
            return self._call(b"EVALSHA", script.sha, len(keys), *keys, *arguments)
        except theirs.NoScriptError:
            return self._call(b"EVAL", script.text, len(keys), *keys, *arguments)

    def _call(self, *command: Any) -> Any:
        try:
            if self._connection is None:
                self._connection = self._deployment.find(self._key).blocking(self._timeout)
                self._connection.connect()
            return self._exchange(self._connection, command)
        except theirs.NoScriptError:
            raise
        except (TimeoutError, theirs.RedisError, OSError) as error:
            there = redirection(error)
            if there is not None and not there.moved:
                return self._ask(there, command)
            self.close()  # also for MOVED: the next call looks for the slot anew
            raise translate(error) from None

    def _ask(self, there: Redirection, command: Any) -> Any:
        connection = self._deployment.at(there.host, there.port).blocking(self._timeout)
        try:
            connection.connect()
            self._exchange(connection, (b"ASKING",))
            return self._exchange(connection, command)
        except theirs.NoScriptError:
            raise
        except (TimeoutError, theirs.RedisError, OSError) as error:
            raise translate(error) from None
        finally:
            connection.disconnect()

    @staticmethod
    def _exchange(connection: Any, command: Any) -> Any:
        connection.send_packed_command([pack(*command)], check_health=False)
        return connection.read_response(disable_decoding=True)

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.disconnect()
            except (theirs.RedisError, OSError):
                pass


def pack(*command: Any) -> bytes:
    """A command as bytes; by hiredis, which is several times faster than the client's own way."""
    packed: bytes = hiredis.pack_command(command)
    return packed
