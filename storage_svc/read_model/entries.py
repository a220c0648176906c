"""What each event makes of one output's row: its state, its link, and why it is not stored."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from datetime import datetime

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Output
    from shared.contracts.generation_events import LinksNotRenewed, LinksRenewed
    from shared.contracts.storage_events import (
        MediaLost,
        MediaStored,
        MigrationAttemptFailed,
        ObjectLost,
        QuarantineRejected,
        QuarantineReleased,
        RefetchRequested,
    )


class EntryState(StrEnum):
    """What became of an output so far."""

    PENDING = "pending"
    AWAITING_LINK = "awaiting_link"
    STORED = "stored"
    LOST = "lost"


# Python 3.11 asks a descriptor written in Python for every member that is named by its class.
_PENDING: Final = EntryState.PENDING
_AWAITING_LINK: Final = EntryState.AWAITING_LINK
_STORED: Final = EntryState.STORED
_LOST: Final = EntryState.LOST


class Entry(NamedTuple):
    """One output that was not stored when its generation completed.

    A named tuple, because it is made anew with every event: 2 us where a frozen dataclass takes 10.

    Attributes:
        turn: its place among the outputs of its user whose first links die in the same second;
            None until saved.
        next_attempt_at: when it is tried again; for one that awaits a link, when that ends.
        first_dies_at: when its first link dies, where a new one has moved `dies_at`.
        media_type: of what is stored, or what the bytes looked like that were refused.
        link: the request for new links that brought this one; 0 is the completion's own.
        asked: the last request for a new link; 0 is none.
        losses: how often it was given up on.
        as_is: whether a person wants the bytes whatever they are.
        rejected: why a person does not want what was refused.
    """

    output_index: int
    source_url: str
    dies_at: datetime
    turn: int | None
    state: EntryState
    attempts: int
    next_attempt_at: datetime | None
    reason: str | None = None
    detail: str | None = None
    failed_at: datetime | None = None
    bucket: str | None = None
    object_key: str | None = None
    size_bytes: int | None = None
    sha256: str | None = None
    media_type: str | None = None
    took_s: float | None = None
    settled_at: datetime | None = None
    first_dies_at: datetime | None = None
    link: int = 0
    asked: int = 0
    losses: int = 0
    as_is: bool = False
    rejected: str | None = None

    @property
    def source_host(self) -> str:
        """The host that the link leads to; empty where the link is not one."""
        try:
            return urlsplit(self.source_url).hostname or ""
        except ValueError:
            return ""


def opened(output: Output, completed_at: datetime) -> Entry:
    """An output that was not stored when its generation completed: it may be copied at once."""
    return Entry(
        output_index=output.index,
        source_url=output.source_url,
        dies_at=output.expires_at,
        turn=None,
        state=_PENDING,
        attempts=0,
        next_attempt_at=completed_at,
    )


def told(entry: Entry, reason: str, detail: str) -> Entry:
    """Why storing at once failed; what the migration found out since says more."""
    if entry.state is not _PENDING or entry.attempts:
        return entry
    return entry._replace(reason=reason, detail=detail)


def stored(entry: Entry, event: MediaStored, envelope: Envelope) -> Entry:
    """It is in the bucket."""
    if entry.state is _STORED:
        return entry
    return entry._replace(
        state=_STORED,
        attempts=event.attempt,
        next_attempt_at=None,
        reason=None,
        detail=None,
        bucket=event.object.bucket,
        object_key=event.object.key,
        size_bytes=event.object.size_bytes,
        sha256=event.object.sha256,
        media_type=event.object.media_type,
        took_s=event.took_s,
        settled_at=envelope.time,
    )


def failed(entry: Entry, event: MigrationAttemptFailed, envelope: Envelope) -> Entry:
    """An attempt failed; what was given up on and tried again waits from now on."""
    if not _is_open(entry) or event.attempt <= entry.attempts:
        return entry
    return entry._replace(
        state=_PENDING,
        attempts=event.attempt,
        next_attempt_at=event.retry_at,
        reason=event.reason.value,
        detail=event.detail,
        failed_at=envelope.time,
        media_type=None,
        settled_at=None,
    )


def lost(entry: Entry, event: MediaLost, envelope: Envelope) -> Entry:
    """Given up on: said for the first time, and about the newest link."""
    known = (event.loss or 1) != entry.losses + 1 or (event.link or 0) != entry.link
    if known or not (_is_open(entry) or entry.state is _AWAITING_LINK):
        return entry
    return entry._replace(
        state=_LOST,
        attempts=max(entry.attempts, event.attempt),
        next_attempt_at=None,
        reason=event.reason.value,
        detail=event.detail,
        failed_at=envelope.time,
        media_type=event.media_type,
        settled_at=envelope.time,
        losses=entry.losses + 1,
    )


def vanished(entry: Entry, event: ObjectLost, envelope: Envelope) -> Entry:
    """What was stored is gone, and nothing gives it again."""
    if entry.state is not _STORED or entry.object_key != event.object_key:
        return entry
    return entry._replace(
        state=_LOST,
        reason=event.reason.value,
        detail=event.detail,
        failed_at=envelope.time,
        settled_at=envelope.time,
        bucket=None,
        object_key=None,
        size_bytes=None,
        sha256=None,
        media_type=None,
        took_s=None,
    )


def released(entry: Entry, event: QuarantineReleased, envelope: Envelope) -> Entry:
    """A person wants the bytes as they are."""
    if not _is_judged(entry, event.attempt) or entry.rejected is not None:
        return entry
    again = _pending_again(entry, envelope)
    return again._replace(as_is=True)


def rejected(entry: Entry, event: QuarantineRejected) -> Entry:
    """A person does not want it."""
    if not _is_judged(entry, event.attempt):
        return entry
    return entry._replace(rejected=event.detail)


def awaiting(entry: Entry, event: RefetchRequested) -> Entry:
    """Its link is dead, and a new one was asked for."""
    meant = entry.output_index in event.indexes and event.request > entry.asked
    if not meant or entry.state is not _PENDING or entry.attempts == 0:
        return entry
    return entry._replace(
        state=_AWAITING_LINK,
        next_attempt_at=event.answer_by,
        asked=event.request,
    )


def renewed(entry: Entry, event: LinksRenewed, envelope: Envelope) -> Entry:
    """It has a new link, also where that comes late."""
    new = next((link for link in event.links if link.index == entry.output_index), None)
    if new is None or not _is_answered(entry, event.request):
        return entry
    return _pending_again(entry, envelope)._replace(
        source_url=new.source_url,
        dies_at=new.expires_at,
        first_dies_at=entry.first_dies_at or entry.dies_at,
        link=event.request,
    )


def refused(entry: Entry, event: LinksNotRenewed, envelope: Envelope) -> Entry:
    """There is no new link: whether anything else helps is the workers' to find out, now."""
    if entry.state is not _AWAITING_LINK or not _is_answered(entry, event.request):
        return entry
    return entry._replace(
        next_attempt_at=min(envelope.time, entry.next_attempt_at or envelope.time)
    )


def _is_open(entry: Entry) -> bool:
    """Whether an attempt may change it: it waits for one, or a person had one made."""
    given_up = entry.state is _LOST and entry.rejected is None
    return given_up or entry.state is _PENDING


def _is_judged(entry: Entry, attempt: int) -> bool:
    return entry.state is _LOST and entry.attempts == attempt


def _is_answered(entry: Entry, request: int) -> bool:
    settled = entry.state is _STORED or entry.rejected is not None
    return not settled and entry.asked == request > entry.link


def _pending_again(entry: Entry, envelope: Envelope) -> Entry:
    return entry._replace(
        state=_PENDING,
        next_attempt_at=envelope.time,
        media_type=None,
        settled_at=None,
    )
