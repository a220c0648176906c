"""What events are made of: identifiers, values, and the two things that events may hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
)

from shared.contracts.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Iterable

Family = Literal["generation", "storage"]

# One token of a NATS subject, and one folder of an object key: nothing that either reads as syntax.
GenerationId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
UserId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_@.+-]{1,128}$", min_length=1)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
OutputIndex = Annotated[int, Field(ge=0, lt=1000)]
Attempt = Annotated[int, Field(ge=1)]
# Which request for new links it is, of one generation.
RefetchNumber = Annotated[int, Field(ge=1)]
Detail = Annotated[str, StringConstraints(max_length=2000)]

# The JSON reader gives up at some 200 levels, and the event has a few of its own.
_MAX_DEPTH: Final = 64


def _survive_json(values: Iterable[JsonValue], depth: int) -> None:
    # Once for what a list or an object holds, not once for each value: this is half of the time
    # that reading an event takes which has a large input.
    for value in values:
        if depth > _MAX_DEPTH:
            raise ValueError(f"is nested more than {_MAX_DEPTH} deep")
        if isinstance(value, str):
            _is_writable(value)
        elif isinstance(value, float):
            if not math.isfinite(value):
                raise ValueError("NaN and infinity are not JSON")
        elif isinstance(value, dict):
            for name in value:
                _is_writable(name)
            _survive_json(value.values(), depth + 1)
        elif isinstance(value, list):
            _survive_json(value, depth + 1)


def _is_writable(text: str) -> None:
    if not text.isascii():
        text.encode()  # half of a surrogate pair cannot be written


def _object_survives_json(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    _survive_json((value,), 0)
    return value


# What somebody else chose the shape of: read back from the log exactly as it was given.
JsonObject = Annotated[dict[str, JsonValue], AfterValidator(_object_survives_json)]


# What pydantic makes models with is an abstract base class's: to see that an event is not of a type
# takes a call in Python there. Folds ask that of every event, several times.
class _Plain(type(BaseModel)):
    __instancecheck__ = type.__instancecheck__


class Fact(BaseModel, metaclass=_Plain):
    """Part of an event: cannot be changed, takes no value of another type, no unknown field."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Event(Fact):
    """Something that happened. Subclasses say what, and what it is called in the log."""

    type: ClassVar[str]
    family: ClassVar[Family]

    def key(self) -> str:
        """What tells this event from others of its type in one aggregate; part of its id."""
        return ""


class StoredObject(Fact):
    """Where the bytes of one output are. Never a URL: those are made when somebody reads."""

    bucket: str
    key: str
    size_bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256
    media_type: str
    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


class Output(Fact):
    """One piece of media of a generation, by index; `stored` where a copy was made at once."""

    index: OutputIndex
    source_url: str
    expires_at: AwareDatetime
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    stored: StoredObject | None = None


class OutputFailure(Fact):
    """Why one output could not be copied at once."""

    index: OutputIndex
    reason: ReasonCode
    detail: Detail
