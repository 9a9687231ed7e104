"""Types that payloads are made of in the tests. At the top of a module, where annotations find them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pydantic

from taskrunner import JobContext


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1


@dataclass
class Item:
    name: str
    price: float
    colour: Colour = Colour.RED


@dataclass
class Order:
    id: UUID
    placed: datetime
    items: list[Item]
    by_name: dict[str, Item] = field(default_factory=dict)
    first: Item | None = None
    parts: list[Order] = field(default_factory=list)
    total: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self.total = sum(item.price for item in self.items)


class Model(pydantic.BaseModel):
    number: int
    share: float = 0.5
    inner: Model | None = None
    when: datetime | None = None


class Struct(msgspec.Struct):
    number: int
    tags: list[str] = []
    share: float = 0.5


async def take_order(ctx: JobContext, order: Order) -> Order:
    assert isinstance(order, Order)
    return order


async def take_model(model: Model) -> Model:
    assert isinstance(model, Model)
    return model


async def take_struct(struct: Struct) -> Struct:
    assert isinstance(struct, Struct)
    return struct


async def take_simple(
    when: datetime, day: date, hour: time, id: UUID, colour: Colour, level: Level, amount: Decimal
) -> list[str]:
    return [type(one).__name__ for one in (when, day, hour, id, colour, level, amount)] + [repr(amount)]


async def take_containers(
    many: list[Item], named: dict[str, Item], perhaps: Item | None, marked: Annotated[Item, "a note"]
) -> list[str]:
    return [type(one).__name__ for one in (many[0], named["x"], perhaps, marked)]


async def take_star(first: Item, *rest: Any, last: Item, **more: Any) -> list[Any]:
    return [type(first).__name__, list(rest), type(last).__name__, more]


async def take_any(value: Any = None, *, other: Any = None) -> Any:
    return value


def plain(order: Order, count: int = 1) -> str:
    return f"{type(order).__name__} {count}"
