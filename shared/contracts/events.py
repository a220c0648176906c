"""Version 1 of every event: what the two services, and any other, write to the log.

Strict and closed when they are made, so that nothing wrong is ever written; read tolerantly
(`shared.contracts.codec`), so that a newer writer's extra field stops no older reader. A new
field has a default. Any other change is a new version with an upcaster.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    StringConstraints,
    model_validator,
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


class GenerationRequested(Event):
    """Somebody asked for a generation, and the log has it: it will be run."""

    type: ClassVar[str] = "velro.generation.requested.v1"
    family: ClassVar[Family] = "generation"

    user_id: UserId
    provider: str
    model: str
    input: JsonObject
    idempotency_key: str | None = None
    metadata: JsonObject = Field(default_factory=dict[str, JsonValue])


class SubmissionStarted(Event):
    """The paid call is about to be made. Without a later event its outcome is unknown.

    `claim` is known to the one run that announced the call, and so may make it. Of the calls
    before it, `not_taken` were certainly not taken, and so cannot be billed.
    """

    type: ClassVar[str] = "velro.generation.submission_started.v1"
    family: ClassVar[Family] = "generation"

    attempt: Attempt
    claim: str = ""
    not_taken: Annotated[int, Field(ge=1)] | None = None

    def key(self) -> str:
        """One a paid call."""
        return str(self.attempt)


class GenerationSubmitted(Event):
    """The provider took the work and answered with its names for it."""

    type: ClassVar[str] = "velro.generation.submitted.v1"
    family: ClassVar[Family] = "generation"

    attempt: Attempt
    request_id: str
    status_url: str
    response_url: str
    cancel_url: str

    def key(self) -> str:
        """One a paid call."""
        return str(self.attempt)


class GenerationCompleted(Event):
    """The media exists. Says all that storing needs, so that any service may publish it."""

    type: ClassVar[str] = "velro.generation.completed.v1"
    family: ClassVar[Family] = "generation"

    user_id: UserId
    provider: str
    model: str
    request_id: str | None = None
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=1000)]

    @model_validator(mode="after")
    def _indexed_from_zero(self) -> Self:
        for place, output in enumerate(self.outputs):
            if output.index != place:
                raise ValueError("outputs are listed by index, from 0, without gaps")
        return self


class StorageFailed(Event):
    """The copy could not be made at once. The generation stays completed all the same."""

    type: ClassVar[str] = "velro.generation.storage_failed.v1"
    family: ClassVar[Family] = "generation"

    failures: Annotated[tuple[OutputFailure, ...], Field(min_length=1)]


class GenerationFailed(Event):
    """The provider made no media; or it was `given_up` on, and media that comes yet counts."""

    type: ClassVar[str] = "velro.generation.failed.v1"
    family: ClassVar[Family] = "generation"

    code: str
    detail: Detail
    retryable: bool
    billed: bool | None = None
    given_up: Literal[True] | None = None


class GenerationCancelled(Event):
    """Somebody wants no result any more."""

    type: ClassVar[str] = "velro.generation.cancelled.v1"
    family: ClassVar[Family] = "generation"

    reason: Detail = ""


class RenewedLink(Fact):
    """A new link to one output, of the same paid request."""

    index: OutputIndex
    source_url: str
    expires_at: AwareDatetime


class LinksRenewed(Event):
    """The provider was asked for its result again: the answer to one RefetchRequested."""

    type: ClassVar[str] = "velro.generation.links_renewed.v1"
    family: ClassVar[Family] = "generation"

    request: RefetchNumber
    links: Annotated[tuple[RenewedLink, ...], Field(min_length=1)]

    def key(self) -> str:
        """One a request."""
        return str(self.request)


class LinksNotRenewed(Event):
    """The provider has no new links: the other answer to one RefetchRequested."""

    type: ClassVar[str] = "velro.generation.links_not_renewed.v1"
    family: ClassVar[Family] = "generation"

    request: RefetchNumber
    detail: Detail

    def key(self) -> str:
        """One a request."""
        return str(self.request)


class SourcesDeleted(Event):
    """The provider deleted its own copies, because all outputs are stored and settings say so."""

    type: ClassVar[str] = "velro.generation.sources_deleted.v1"
    family: ClassVar[Family] = "generation"

    detail: Detail = ""


class MediaStored(Event):
    """One output is in the bucket, verified.

    `again` is how often it has been stored, from the second time on, after each `ObjectLost`.
    """

    type: ClassVar[str] = "velro.storage.media_stored.v1"
    family: ClassVar[Family] = "storage"

    index: OutputIndex
    attempt: Attempt
    object: StoredObject
    took_s: Annotated[float, Field(ge=0)]
    again: Annotated[int, Field(ge=2)] | None = None

    def key(self) -> str:
        """One an output, as long as its object is not lost."""
        return str(self.index) if self.again is None else f"{self.index}-{self.again}"


class MigrationAttemptFailed(Event):
    """One attempt to copy one output failed; `retry_at` is when the next may start."""

    type: ClassVar[str] = "velro.storage.attempt_failed.v1"
    family: ClassVar[Family] = "storage"

    index: OutputIndex
    attempt: Attempt
    reason: ReasonCode
    detail: Detail
    retry_at: AwareDatetime

    def key(self) -> str:
        """One an attempt of an output."""
        return f"{self.index}-{self.attempt}"


class MigrationCompleted(Event):
    """Every output of the generation is stored."""

    type: ClassVar[str] = "velro.storage.completed.v1"
    family: ClassVar[Family] = "storage"

    file_count: Annotated[int, Field(ge=1)]
    total_size_bytes: Annotated[int, Field(ge=0)]


class MediaLost(Event):
    """One output is given up on: expired, gone, or refused for what it is.

    A person, or a new link that came late, may bring it back; it can be lost again then.

    Attributes:
        media_type: what the bytes look like, where they are refused for that.
        link: the request that brought the link it was lost on; None is the completion's own link.
        loss: which loss of this output it is, from the second on.
    """

    type: ClassVar[str] = "velro.storage.media_lost.v1"
    family: ClassVar[Family] = "storage"

    index: OutputIndex
    attempt: Attempt
    reason: ReasonCode
    detail: Detail
    media_type: str | None = None
    link: Annotated[int, Field(ge=1)] | None = None
    loss: Annotated[int, Field(ge=2)] | None = None

    def key(self) -> str:
        """One a loss of an output; the first one by the output alone, as it always was."""
        return str(self.index) if self.loss is None else f"{self.index}-{self.loss}"


class ObjectLost(Event):
    """What was stored is not in the bucket any more, or not as it was, and no link gives it again.

    Attributes:
        object_key: of the object that is gone.
        loss: which one of this output's it is, from 1.
    """

    type: ClassVar[str] = "velro.storage.object_lost.v1"
    family: ClassVar[Family] = "storage"

    index: OutputIndex
    object_key: str
    loss: Annotated[int, Field(ge=1)]
    reason: ReasonCode
    detail: Detail

    def key(self) -> str:
        """One an object that was stored."""
        return f"{self.index}-{self.loss}"


class QuarantineReleased(Event):
    """A person wants what was refused for its type: it is copied again, as bytes of no type."""

    type: ClassVar[str] = "velro.storage.released.v1"
    family: ClassVar[Family] = "storage"

    index: OutputIndex
    attempt: Attempt

    def key(self) -> str:
        """One an attempt that ended in quarantine."""
        return f"{self.index}-{self.attempt}"


class QuarantineRejected(Event):
    """A person has seen what was refused for its type, and it stays refused for good."""

    type: ClassVar[str] = "velro.storage.rejected.v1"
    family: ClassVar[Family] = "storage"

    index: OutputIndex
    attempt: Attempt
    detail: Detail

    def key(self) -> str:
        """One an attempt that ended in quarantine."""
        return f"{self.index}-{self.attempt}"


class RefetchRequested(Event):
    """The links of these outputs are dead: whoever made the generation is asked for new ones.

    Without an answer by `answer_by` the outputs are given up on; a later answer still helps.
    """

    type: ClassVar[str] = "velro.storage.refetch_requested.v1"
    family: ClassVar[Family] = "storage"

    request: RefetchNumber
    indexes: Annotated[tuple[OutputIndex, ...], Field(min_length=1)]
    answer_by: AwareDatetime

    def key(self) -> str:
        """One a request."""
        return str(self.request)


GenerationEvent = (
    GenerationRequested
    | SubmissionStarted
    | GenerationSubmitted
    | GenerationCompleted
    | StorageFailed
    | GenerationFailed
    | GenerationCancelled
    | LinksRenewed
    | LinksNotRenewed
    | SourcesDeleted
)
StorageEvent = (
    MediaStored
    | MigrationAttemptFailed
    | MigrationCompleted
    | MediaLost
    | ObjectLost
    | QuarantineReleased
    | QuarantineRejected
    | RefetchRequested
)
AnyEvent = GenerationEvent | StorageEvent

EVENT_TYPES: tuple[type[AnyEvent], ...] = (
    GenerationRequested,
    SubmissionStarted,
    GenerationSubmitted,
    GenerationCompleted,
    StorageFailed,
    GenerationFailed,
    GenerationCancelled,
    LinksRenewed,
    LinksNotRenewed,
    SourcesDeleted,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    MediaLost,
    ObjectLost,
    QuarantineReleased,
    QuarantineRejected,
    RefetchRequested,
)
