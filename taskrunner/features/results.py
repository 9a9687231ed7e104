"""Results: whether and how long the outcome of a job is known.

    @runner.task(result_ttl=3600)
    async def report(day: str) -> str: ...

    @runner.task(ignore_result=True)      # the fastest: no record of the job is kept at all
    async def ping(host: str) -> None: ...

``result_ttl`` (seconds, None: the runner's) is how long status, result or error can be asked for after the job ended.
A job with ``ignore_result`` has no status; one that is unique, has a lock key, a limit or a rate, or an id of the
caller's, has one while it lives.
"""

from __future__ import annotations

from functools import partial

from ..envelope import TRACKED, Draft, Extra
from ..feature import Arguments, Feature, Fill, Option
from ..options import Options, seconds_or_none, truth
from ..template import Parameters


class Results(Feature):
    """See the module's docstring."""

    options = {
        "result_ttl": Option(None, partial(seconds_or_none, zero=False), travels=True),
        "ignore_result": Option(False, truth),
    }

    def on_dispatch(self, task: str, options: Options, parameters: Parameters | None) -> Fill | None:
        if not options["ignore_result"]:
            return None  # drafts are born TRACKED | KEPT

        def fill(draft: Draft, arguments: Arguments, now: int) -> None:
            # A lease is worth what its holder's record is worth: without one nobody could tell that the holder died.
            needy = draft.leases or draft.custom_id or Extra.NEEDS in draft.envelope.extras
            draft.envelope.flags = TRACKED if needy else 0

        return fill
