"""Version 1 of every event of a generation's storing; the rules are those of `events`."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import AwareDatetime, Field

from shared.contracts.facts import (
    Attempt,
    Detail,
    Event,
    Family,
    OutputIndex,
    RefetchNumber,
    StoredObject,
)
from shared.contracts.reasons import ReasonCode


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
