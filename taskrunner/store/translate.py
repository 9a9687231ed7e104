"""Turns every error of the client, the network or the server into one of ours."""

from __future__ import annotations

from dataclasses import dataclass

from redis import exceptions as theirs

from ..errors import QueueFull, RedisConfigurationError, RedisError, RedisUnavailable


class GroupMissing(RedisUnavailable):
    """The stream has no consumer group (any more): the server was emptied. The caller makes it again."""


class Unanswered(RedisUnavailable):
    """The connection failed after the command went out: it may or may not have been carried out."""


@dataclass(frozen=True)
class Redirection:
    """A node of a cluster says who has the slot; nothing was done. ``moved``: for good, and not for one command."""

    moved: bool
    host: str
    port: int


def redirection(reply: object) -> Redirection | None:
    """What an error reply says of where to go; None when it is something else."""
    if not isinstance(reply, theirs.ResponseError):
        return None
    moved = isinstance(reply, theirs.MovedError)
    if isinstance(reply, theirs.AskError):  # of which MovedError is one
        return Redirection(moved, str(reply.host), int(reply.port))
    # Before its version 6 the client left them as they came, outside of its own cluster client.
    words = str(reply).split()
    if len(words) != 3 or words[0] not in ("MOVED", "ASK"):
        return None
    host, _, port = words[2].rpartition(":")
    return Redirection(words[0] == "MOVED", host, int(port))


def translate(error: BaseException, *, sent: bool = False) -> RedisError:
    """An error of the client, the network or the server as one of ours. Secrets are in none of the texts used here.

    Everything that isn't surely configuration is an outage: MISCONF, NOREPLICAS, LOADING, BUSY, a demoted primary, and
    any reply that we don't know end by themselves or by an operator's hand, and no job must fail for them. ``sent``
    tells that the command had gone out when it happened.
    """
    if isinstance(error.__cause__, theirs.AuthenticationError):
        error = error.__cause__  # on a Unix socket the client wraps it into one that says "no connection"
    text = str(error)
    code = text.partition(" ")[0].upper()
    if isinstance(error, theirs.OutOfMemoryError) or code == "OOM" or "-OOM " in text:  # 6.2 wraps a script's errors
        return QueueFull("Redis is out of memory and refused to take more; nothing was written. Free memory, or wait.")
    refused = (theirs.AuthenticationError, theirs.AuthorizationError, theirs.NoPermissionError)
    # Where these are an ERR: inside a script, and for a command of more than 10 words from somebody not yet known.
    unnamed = "has no permissions to run" in text or "unauthenticated" in text
    if isinstance(error, refused) or code in ("NOAUTH", "WRONGPASS", "NOPERM", "DENIED") or unnamed:
        return RedisConfigurationError(f"Redis refuses this user ({_short(text)}); check user name, password and ACL")
    # By OpenSSL's own codes: a host may be called redis-ssl, and a link that ends in the middle is an outage.
    if ("[SSL: " in text and "EOF" not in text and "AFTER_CLOSE" not in text) or text.startswith("Invalid SSL"):
        return RedisConfigurationError(
            f"the TLS connection to Redis can't be made ({_short(text)}); check rediss:// and ssl_*"
        )
    if code == "WRONGTYPE":
        return RedisConfigurationError(
            f"foreign data under our keys ({_short(text)}); use another namespace or key_prefix"
        )
    if code == "NOGROUP" or "NOGROUP" in text:
        return GroupMissing("the consumer group is gone: the server's data was deleted")
    if "unknown command" in text.lower():
        return RedisConfigurationError(f"the server is too old ({_short(text)}); Redis 6.2 or newer is needed")
    told = f"Redis can't be used now: {_short(text) or type(error).__name__}"
    return Unanswered(told) if sent else RedisUnavailable(told)


def _short(text: str) -> str:
    return text[:300].replace("\n", " ").rstrip(". ")
