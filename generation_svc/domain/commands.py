"""What can be asked of one generation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shared.contracts.facts import Output, OutputFailure
    from shared.contracts.generation_events import RenewedLink


@dataclass(frozen=True, slots=True)
class Request:
    """Ask for a generation. Asking again with the same words is the same request."""

    user_id: str
    provider: str
    model: str
    input: Mapping[str, Any]
    idempotency_key: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, "Any"])


@dataclass(frozen=True, slots=True)
class StartSubmission:
    """Announce paid call number `attempt`, before it is made.

    `claim` is made for this announcement alone: who finds it in the log announced the call.
    `not_taken` of the calls before it were certainly not taken.
    """

    attempt: int
    claim: str
    not_taken: int = 0


@dataclass(frozen=True, slots=True)
class RecordSubmitted:
    """Keep the provider's names for the work that paid call `attempt` handed over."""

    attempt: int
    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class Complete:
    """The media exists; `failures` says which outputs could not be copied at once."""

    request_id: str | None
    outputs: tuple[Output, ...]
    failures: tuple[OutputFailure, ...] = ()


@dataclass(frozen=True, slots=True)
class Fail:
    """The provider made no media in this request (None: it never took one).

    `given_up` where only we say so: what it made may still come.
    """

    request_id: str | None
    code: str
    detail: str
    retryable: bool
    billed: bool | None
    given_up: bool = False


@dataclass(frozen=True, slots=True)
class Cancel:
    """Nobody wants the result any more."""

    reason: str = ""


@dataclass(frozen=True, slots=True)
class AnswerLinks:
    """The provider gave links again, in answer to request number `request` for them."""

    request: int
    links: tuple[RenewedLink, ...]


@dataclass(frozen=True, slots=True)
class RefuseLinks:
    """There are no new links, in answer to request number `request` for them."""

    request: int
    detail: str


@dataclass(frozen=True, slots=True)
class RecordSourcesDeleted:
    """The provider deleted its own copy, because we asked it to."""


Command = (
    Request
    | StartSubmission
    | RecordSubmitted
    | Complete
    | Fail
    | Cancel
    | AnswerLinks
    | RefuseLinks
    | RecordSourcesDeleted
)
