"""Given what the log says, when something is found out, then this is said."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.contracts.envelope import Context, Envelope, seal
from shared.contracts.facts import Output, StoredObject
from shared.contracts.generation_events import (
    GenerationCompleted,
    LinksNotRenewed,
    LinksRenewed,
    RenewedLink,
)
from shared.contracts.reasons import ReasonCode
from storage_svc.domain.commands import (
    AskForLink,
    Command,
    EndWaiting,
    RecordAttemptFailed,
    RecordLost,
    RecordStored,
    RejectQuarantined,
    ReleaseQuarantined,
)
from storage_svc.domain.decide import decide
from storage_svc.domain.state import Kept, fold

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.events import AnyEvent
    from storage_svc.domain.state import OutputState, State

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(minutes=15)
ID = "generation-1"
RELEASE, REJECT = ReleaseQuarantined(0), RejectQuarantined(0, "asks for a password")


def sealed(event: AnyEvent) -> Envelope:
    return seal(event, generation_id=ID, at=NOON, context=Context(source="test"))


def an_object(index: int, size_bytes: int = 10) -> StoredObject:
    return StoredObject(
        bucket="media",
        key=f"user/{ID}/{index}-0123456789abcdef.png",
        size_bytes=size_bytes,
        sha256="0123456789abcdef" * 4,
        media_type="image/png",
    )


def completed(count: int, *, at_once: Sequence[int] = ()) -> GenerationCompleted:
    return GenerationCompleted(
        user_id="user",
        provider="sandbox",
        model="painter",
        outputs=tuple(
            Output(
                index=index,
                source_url=f"https://media.example/{index}.png",
                expires_at=NOON + timedelta(hours=1),
                stored=an_object(index) if index in at_once else None,
            )
            for index in range(count)
        ),
    )


def store(index: int, attempt: int = 1, size_bytes: int = 10) -> RecordStored:
    return RecordStored(index, attempt, an_object(index, size_bytes), took_s=0.5)


def fail(index: int, attempt: int = 1) -> RecordAttemptFailed:
    return RecordAttemptFailed(
        index, attempt, ReasonCode.BUCKET_UNAVAILABLE, "connection refused", NOON
    )


def lose(index: int, attempt: int = 1, *, link: int = 0) -> RecordLost:
    return RecordLost(index, attempt, ReasonCode.SOURCE_EXPIRED, "410 Gone", link)


def refuse(index: int, attempt: int = 1, *, link: int = 0) -> RecordLost:
    detail = "the bytes are an HTML page"
    return RecordLost(
        index, attempt, ReasonCode.MEDIA_TYPE_REFUSED, detail, link, media_type="text/html"
    )


def ask(index: int, attempt: int = 1, *, link: int = 0) -> AskForLink:
    return AskForLink(index, attempt, ReasonCode.SOURCE_EXPIRED, "410 Gone", LATER, link)


def wait_until(at: datetime, index: int = 0) -> EndWaiting:
    return EndWaiting(index, at)


def renewed(request: int, *indexes: int) -> LinksRenewed:
    return LinksRenewed(
        request=request,
        links=tuple(
            RenewedLink(
                index=index,
                source_url=f"https://media.example/{index}-{request}.png",
                expires_at=LATER + timedelta(hours=1),
            )
            for index in indexes or (0,)
        ),
    )


def not_renewed(request: int) -> LinksNotRenewed:
    return LinksNotRenewed(request=request, detail="the provider has forgotten it")


@dataclass(frozen=True)
class Given:
    """`said` is what others say meanwhile; `new` is what was decided."""

    events: tuple[AnyEvent, ...]
    new: list[AnyEvent] = field(default_factory=list["AnyEvent"])

    def state(self) -> State:
        return fold(map(sealed, self.events))

    def output(self, index: int = 0) -> OutputState:
        state = self.state()
        assert isinstance(state, Kept)
        return state.outputs[index]

    def said(self, *events: AnyEvent) -> Given:
        return replace(self, events=(*self.events, *events))

    def when(self, command: Command) -> Given:
        decided = decide(command, self.state())
        return replace(self, events=(*self.events, *decided), new=[*self.new, *decided])

    def then(self, *types: type[AnyEvent]) -> None:
        assert [type(event) for event in self.new] == list(types)

    def then_nothing_happens(self) -> None:
        self.then()


def given(*events: AnyEvent) -> Given:
    return Given(events)
