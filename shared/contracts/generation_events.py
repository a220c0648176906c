"""Version 1 of every event of a generation's own stream; the rules are those of `events`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from shared.contracts.facts import (
    Attempt,
    Detail,
    Event,
    Fact,
    Family,
    JsonObject,
    Output,
    OutputFailure,
    OutputIndex,
    RefetchNumber,
    UserId,
)


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
