"""The port to whoever makes the media: fal first, anybody else behind the same six verbs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from shared.errors import Refused, TryLater, VelroError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class ProviderTraits:
    """What a provider promises, which decides how its work is kept safe.

    Attributes:
        name: the name in requests, events and settings.
        link_lifetime_s: how long an output's link lives when the answer does not say.
        refetch_window_s: how long after completion a result can be asked for again; 0: never.
        download_needs_key: whether fetching an output takes the provider's key.
        idempotent_submit: whether submitting twice with one key is billed once.
        deletes_sources: whether it can be asked to delete its copy of what it made.
    """

    name: str
    link_lifetime_s: float
    refetch_window_s: float
    download_needs_key: bool
    idempotent_submit: bool
    deletes_sources: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """One generation as it is handed to the provider, once."""

    generation_id: str
    model: str
    input: Mapping[str, Any]
    webhook_url: str | None


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """How the provider names the work it took: its id and the URLs it answered with."""

    request_id: str
    status_url: str
    response_url: str
    cancel_url: str


@dataclass(frozen=True, slots=True)
class ProviderOutput:
    """One piece of media as the provider describes it. Nothing in it has been checked.

    `expires_at` is None where the provider does not say: then its link lives for the traits'
    `link_lifetime_s` from a moment between submission and report that nobody knows.
    """

    url: str
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    size_bytes: int | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """Not finished: in the queue (with how many before it) or in progress."""

    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class Succeeded:
    """Finished, with media by index."""

    outputs: tuple[ProviderOutput, ...]


@dataclass(frozen=True, slots=True)
class Failed:
    """Finished without media. `billed` is None where the provider does not say."""

    code: str
    detail: str
    retryable: bool
    billed: bool | None


Result = Succeeded | Failed
Progress = Pending | Result


@dataclass(frozen=True, slots=True)
class WebhookCall:
    """A callback as it arrived: header names in lower case, the body unread."""

    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WebhookReport:
    """What a verified callback says."""

    request_id: str
    result: Result


class SubmitRefused(Refused):
    """The provider will not take this request; the same request will be refused again."""

    def __init__(self, code: str, detail: str, *, billed: bool | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.billed = billed


class SubmitTryLater(TryLater):
    """The provider certainly did not take the request: busy, broken, or never reached."""

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class SubmitOutcomeUnknown(VelroError):
    """The request left and no usable answer came: the provider may be working, and billing."""


class ProviderUnavailable(TryLater):
    """Polling or cancelling got no usable answer; asking again may."""


class ResultGone(Refused):
    """The provider no longer knows this request or its result."""


class WebhookRejected(Refused):
    """The callback's signature, time or form is wrong; nothing in it may be believed."""


class WebhookKeysUnavailable(TryLater):
    """The keys to check a callback with cannot be had now; the provider should call again."""


class Provider(Protocol):
    """Runs generations. Every request has a deadline, and no verb sends one again by itself."""

    @property
    def traits(self) -> ProviderTraits:
        """What the provider promises."""
        ...

    async def submit(self, submission: Submission) -> ProviderRequest:
        """Hand the work over, once.

        Raises:
            SubmitRefused: no retry can help.
            SubmitTryLater: certainly not taken.
            SubmitOutcomeUnknown: perhaps taken.
        """
        ...

    async def poll(self, request: ProviderRequest) -> Progress:
        """Ask how far it is, and fetch the result when it is there.

        Raises:
            ProviderUnavailable: no usable answer.
            ResultGone: the provider forgot the request.
        """
        ...

    async def cancel(self, request: ProviderRequest) -> None:
        """Ask to stop the work. Returning means asked, not stopped; finished work stays finished.

        Raises:
            ProviderUnavailable: no usable answer.
        """
        ...

    async def delete_sources(self, request: ProviderRequest) -> None:
        """Ask to delete what it keeps of a request, outputs included. Nothing there is no error.

        Raises:
            ProviderUnavailable: no usable answer.
        """
        ...

    async def read_webhook(self, call: WebhookCall, *, now: datetime) -> WebhookReport:
        """Verify a callback and read it.

        Raises:
            WebhookRejected: not to be believed.
            WebhookKeysUnavailable: cannot be checked now.
        """
        ...
