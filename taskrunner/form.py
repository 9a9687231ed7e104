"""Form: how the value of a workflow is read back, from the bytes of its jobs' results to what their tasks return."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .job import Origin
from .store.workflows import Value
from .task import JobSpec
from .workflow import Chain, Graph, Group, Mapped, Part


@dataclass(slots=True, eq=False)
class Form:
    """Of a job ``origin``, whose task says which type it returns, and ``id`` if that is the user's. Of a group or graph
    ``members``, or ``each`` when all are alike. Nothing of these: that is not known, and values are plain data."""

    origin: Origin | None = None
    id: str | None = None
    members: list[Form] | None = None
    each: Form | None = None

    def of(self, index: int) -> Form:
        """That of a member."""
        if self.each is not None:
            return self.each
        return self.members[index] if self.members is not None and index < len(self.members) else UNKNOWN

    def read(self, value: Value, loads: Callable[[bytes], Any]) -> Any:
        """The value itself. None for a job that returned nothing, and for one of which nothing was kept."""
        whole: list[Any] = [None]
        ahead: list[tuple[list[Any], int, Value, Form]] = [(whole, 0, value, self)]
        while ahead:
            there, index, one, form = ahead.pop()
            if isinstance(one, list):
                there[index] = inner = [None] * len(one)
                ahead += [(inner, n, member, form.of(n)) for n, member in enumerate(one)]
            elif one:
                read = loads(one)
                convert = None if form.origin is None else form.origin.convert
                there[index] = read if convert is None or read is None else convert(read)
        return whole[0]


UNKNOWN = Form()


def form_of(part: Part) -> Form:
    """The form of a part, which is not kept itself: its arguments may be large."""
    whole, of_origin = Form(), dict[int, Form]()
    ahead: list[tuple[Form, Part]] = [(whole, part)]
    while ahead:
        form, one = ahead.pop()
        match one:
            case Chain():
                [last] = deque(one.steps, maxlen=1)
                ahead.append((form, last))
                continue
            case Group(members=Mapped() as mapped):
                form.each = Form(mapped.template.origin)
                continue
            case Group():
                parts: tuple[Part, ...] = one.members  # type: ignore[assignment]
            case Graph():
                parts = tuple(node.part for node in one.nodes)
            case _:
                form.origin, form.id = one.origin, one.plan.id
                continue
        form.members = []
        for member in parts:
            if isinstance(member, JobSpec) and member.plan.id is None:  # a hundred thousand members, and few tasks
                form.members.append(of_origin.setdefault(id(member.origin), Form(member.origin)))
            else:
                form.members.append(Form())
                ahead.append((form.members[-1], member))
    return whole
