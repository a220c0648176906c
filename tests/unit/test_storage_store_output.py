"""One copy from the log's word to the log's word, with bytes that are only pretended."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output, StoredObject
from shared.contracts.generation_events import (
    GenerationCompleted,
    LinksNotRenewed,
    LinksRenewed,
    RenewedLink,
)
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    QuarantineRejected,
    RefetchRequested,
)
from shared.event_log.memory import MemoryLog
from shared.event_log.port import NOTHING_YET, AppendOutcomeUnknown
from shared.media.copying import CopyFailed, CopyOrder
from storage_svc.application.backlog import OutputRef
from storage_svc.application.recording import Recorder
from storage_svc.application.store_output import (
    AlreadySettled,
    AwaitsLink,
    FailedNow,
    LostNow,
    StoredNow,
    StoreOutput,
)
from storage_svc.domain.commands import RecordStored, RejectQuarantined
from storage_svc.domain.decide import NothingToKeep
from tests.generation_world import HookedLog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.contracts.events import AnyEvent

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ID = "generation-1"
GONE = CopyFailed(ReasonCode.SOURCE_EXPIRED, "410 Gone")
AFTER_DEATH = NOON + timedelta(hours=2)
FIRST, SECOND = OutputRef(ID, 0), OutputRef(ID, 1)


def an_object(index: int) -> StoredObject:
    return StoredObject(
        bucket="media",
        key=f"ann/{ID}/{index}-ab.png",
        size_bytes=5,
        sha256="ab" * 32,
        media_type="image/png",
    )


@dataclass
class ScriptedCopier:
    """Does what the script says, once a copy, and stores when the script is over."""

    script: list[Exception | Callable[[], Awaitable[None]]] = field(
        default_factory=list["Exception | Callable[[], Awaitable[None]]"]
    )
    orders: list[CopyOrder] = field(default_factory=list["CopyOrder"])

    async def copy(self, order: CopyOrder) -> StoredObject:
        self.orders.append(order)
        if self.script:
            step = self.script.pop(0)
            if isinstance(step, Exception):
                raise step
            await step()
        return an_object(order.output_index)


@dataclass
class Scene:
    copier: ScriptedCopier = field(default_factory=ScriptedCopier)
    log: MemoryLog = field(default_factory=MemoryLog)
    now: datetime = NOON

    @property
    def recorder(self) -> Recorder:
        return Recorder(self.log, clock=lambda: self.now, source="storage_svc")

    @property
    def store(self) -> StoreOutput:
        return StoreOutput(self.copier, self.recorder, clock=lambda: self.now, jitter=lambda: 1.0)

    async def completed(self, outputs: int = 1, *, request_id: str | None = None) -> None:
        event = GenerationCompleted(
            user_id="ann",
            provider="sandbox",
            model="painter",
            request_id=request_id,
            outputs=tuple(
                Output(
                    index=index,
                    source_url=f"https://media.example/{index}.png",
                    expires_at=NOON + timedelta(hours=1),
                )
                for index in range(outputs)
            ),
        )
        envelope = seal(
            event,
            generation_id=ID,
            at=NOON,
            context=Context(source="generation_svc", correlation_id="request-9", traceparent=TRACE),
        )
        await self.log.append("generation", ID, [envelope], expected=NOTHING_YET)

    async def hears(self, event: LinksRenewed | LinksNotRenewed) -> None:
        """The generation service's word."""
        history = await self.log.load("generation", ID)
        envelope = seal(
            event, generation_id=ID, at=self.now, context=Context(source="generation_svc")
        )
        await self.log.append("generation", ID, [envelope], expected=history.version)

    async def said(self) -> list[type[AnyEvent]]:
        history = await self.log.load("storage", ID)
        return [type(recorded.envelope.data) for recorded in history.events]  # pyright: ignore[reportReturnType] - no event here is unknown


async def test_a_copied_output_is_said_to_be_stored_with_what_it_belongs_to() -> None:
    scene = Scene()
    await scene.completed()
    assert await scene.store(FIRST) == StoredNow(size_bytes=5, took_s=0.0)
    assert await scene.said() == [MediaStored, MigrationCompleted]
    history = await scene.log.load("storage", ID)
    assert {recorded.envelope.correlationid for recorded in history.events} == {"request-9"}
    stored = f"{ID}:{MediaStored.type}:0"
    assert [recorded.envelope.causationid for recorded in history.events] == [
        f"{ID}:{GenerationCompleted.type}",
        stored,
    ]
    assert {recorded.envelope.traceparent for recorded in history.events} == {TRACE}
    assert scene.copier.orders[0].source_url == "https://media.example/0.png"


async def test_what_is_stored_is_not_copied_again() -> None:
    scene = Scene()
    await scene.completed()
    await scene.store(FIRST)
    assert await scene.store(FIRST) == AlreadySettled()
    assert len(scene.copier.orders) == 1


async def test_a_failed_copy_is_said_with_its_next_attempt() -> None:
    scene = Scene(ScriptedCopier([CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "refused")]))
    await scene.completed()
    assert await scene.store(FIRST) == FailedNow(
        ReasonCode.BUCKET_UNAVAILABLE, "refused", NOON + timedelta(seconds=2)
    )
    assert await scene.said() == [MigrationAttemptFailed]


async def test_the_pause_that_a_server_asks_for_is_kept() -> None:
    asked = CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, "429", retry_after_s=90)
    scene = Scene(ScriptedCopier([asked]))
    await scene.completed()
    outcome = await scene.store(FIRST)
    assert isinstance(outcome, FailedNow)
    assert outcome.retry_at == NOON + timedelta(seconds=90)


async def test_attempts_count_on_from_what_the_log_says() -> None:
    away = CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "refused")
    scene = Scene(ScriptedCopier([away, away]))
    await scene.completed()
    await scene.store(FIRST)
    await scene.store(FIRST)
    await scene.store(FIRST)
    history = await scene.log.load("storage", ID)
    numbers = [
        recorded.envelope.data.attempt
        for recorded in history.events
        if isinstance(recorded.envelope.data, MediaStored | MigrationAttemptFailed)
    ]
    assert numbers == [1, 2, 3]


async def test_a_dead_link_is_said_to_be_lost() -> None:
    gone = CopyFailed(ReasonCode.SOURCE_EXPIRED, "410 Gone")
    scene = Scene(ScriptedCopier([gone]), now=NOON + timedelta(hours=2))
    await scene.completed()
    assert await scene.store(FIRST) == LostNow(ReasonCode.SOURCE_EXPIRED, "410 Gone")
    assert await scene.said() == [MediaLost]
    assert await scene.store(FIRST) == AlreadySettled()


async def test_a_person_may_try_again_what_was_given_up_on() -> None:
    scene = Scene(ScriptedCopier([CopyFailed(ReasonCode.TOO_LARGE, "3 GiB")]))
    await scene.completed()
    await scene.store(FIRST)
    assert isinstance(await scene.store(FIRST, even_if_lost=True), StoredNow)
    assert await scene.said() == [MediaLost, MediaStored, MigrationCompleted]


async def test_a_retry_of_what_was_given_up_on_that_fails_is_recorded_and_comes_again() -> None:
    away = CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "refused")
    scene = Scene(ScriptedCopier([CopyFailed(ReasonCode.TOO_LARGE, "3 GiB"), away]))
    await scene.completed()
    await scene.store(FIRST)
    assert isinstance(await scene.store(FIRST, even_if_lost=True), FailedNow)
    assert await scene.said() == [MediaLost, MigrationAttemptFailed]
    assert isinstance(await scene.store(FIRST), StoredNow), "a worker goes on with it"


async def test_what_was_given_up_on_is_not_retried_for_ever() -> None:
    too_large = CopyFailed(ReasonCode.TOO_LARGE, "3 GiB")
    scene = Scene(ScriptedCopier([too_large, too_large]))
    await scene.completed()
    await scene.store(FIRST)
    assert isinstance(await scene.store(FIRST, even_if_lost=True), LostNow)
    assert await scene.store(FIRST) == AlreadySettled()
    assert await scene.said() == [MediaLost, MediaLost]


async def test_what_a_person_rejected_is_not_copied_whoever_asks() -> None:
    scene = Scene(ScriptedCopier([CopyFailed(ReasonCode.MEDIA_TYPE_REFUSED, "a page")]))
    await scene.completed()
    await scene.store(FIRST)
    await scene.recorder.record(ID, RejectQuarantined(0, "a page"))
    outcome = await scene.store(FIRST, even_if_lost=True)
    assert isinstance(outcome, AlreadySettled)
    assert outcome.how == "was rejected for good: a page"
    assert await scene.said() == [MediaLost, QuarantineRejected]


async def test_a_dead_link_of_a_request_of_ours_is_asked_for_again() -> None:
    scene = Scene(ScriptedCopier([GONE]), now=AFTER_DEATH)
    await scene.completed(request_id="request-7")
    answer_by = AFTER_DEATH + timedelta(minutes=15)
    awaits = AwaitsLink(ReasonCode.SOURCE_EXPIRED, "410 Gone", answer_by)
    assert await scene.store(FIRST) == awaits
    assert await scene.store(FIRST) == replace(awaits, tried=False), "and is left alone meanwhile"
    assert await scene.said() == [MigrationAttemptFailed, RefetchRequested]
    assert len(scene.copier.orders) == 1


async def test_a_new_link_is_what_is_copied_then() -> None:
    scene = Scene(ScriptedCopier([GONE]), now=AFTER_DEATH)
    await scene.completed(request_id="request-7")
    await scene.store(FIRST)
    await scene.hears(new_link(1))
    assert isinstance(await scene.store(FIRST), StoredNow)
    assert scene.copier.orders[-1].source_url == "https://media.example/new-1.png"
    assert scene.copier.orders[-1].dies_at == AFTER_DEATH + timedelta(hours=1)


async def test_new_links_are_asked_for_so_often_and_no_more() -> None:
    scene = Scene(ScriptedCopier([GONE] * 3), now=AFTER_DEATH)
    await scene.completed(request_id="request-7")
    for request in (1, 2):
        assert isinstance(await scene.store(FIRST), AwaitsLink)
        await scene.hears(new_link(request, lives=timedelta(0)))
    assert isinstance(await scene.store(FIRST), LostNow)
    assert await scene.store(FIRST) == AlreadySettled()


async def test_a_person_who_retries_asks_for_one_more_link() -> None:
    scene = Scene(ScriptedCopier([GONE] * 4), now=AFTER_DEATH)
    await scene.completed(request_id="request-7")
    for request in (1, 2):
        await scene.store(FIRST)
        await scene.hears(new_link(request, lives=timedelta(0)))
    await scene.store(FIRST)
    assert isinstance(await scene.store(FIRST, even_if_lost=True), AwaitsLink)


@pytest.mark.parametrize("wait", [timedelta(0), timedelta(minutes=15)])
async def test_a_link_that_is_refused_or_overdue_is_said_to_be_lost(wait: timedelta) -> None:
    scene = Scene(ScriptedCopier([GONE]), now=AFTER_DEATH)
    await scene.completed(request_id="request-7")
    await scene.store(FIRST)
    if not wait:
        await scene.hears(LinksNotRenewed(request=1, detail="forgotten"))
    scene.now += wait
    outcome = await scene.store(FIRST)
    assert isinstance(outcome, LostNow)
    assert (outcome.reason, outcome.tried) == (ReasonCode.SOURCE_EXPIRED, False)
    assert len(scene.copier.orders) == 1, "its link is not asked again for that"


def new_link(request: int, *, lives: timedelta = timedelta(hours=1)) -> LinksRenewed:
    url = f"https://media.example/new-{request}.png"
    link = RenewedLink(index=0, source_url=url, expires_at=AFTER_DEATH + lives)
    return LinksRenewed(request=request, links=(link,))


async def test_whatever_breaks_is_seen_as_a_failed_attempt() -> None:
    scene = Scene(ScriptedCopier([RuntimeError("a bug")]))
    await scene.completed()
    outcome = await scene.store(FIRST)
    assert isinstance(outcome, FailedNow)
    assert (outcome.reason, outcome.detail) == (ReasonCode.INTERNAL, "RuntimeError: a bug")


async def test_two_workers_on_one_output_say_it_once() -> None:
    scene = Scene()
    await scene.completed()

    async def the_other_is_faster() -> None:
        await scene.recorder.record(ID, RecordStored(0, 1, an_object(0), 0.1))

    scene.copier.script = [the_other_is_faster]
    assert await scene.store(FIRST) == AlreadySettled()
    assert await scene.said() == [MediaStored, MigrationCompleted]


async def test_two_workers_on_two_outputs_complete_the_migration_once() -> None:
    scene = Scene()
    await scene.completed(outputs=2)

    async def the_other_stores_its_output() -> None:
        await scene.recorder.record(ID, RecordStored(1, 1, an_object(1), 0.1))

    scene.copier.script = [the_other_stores_its_output]
    assert isinstance(await scene.store(FIRST), StoredNow)
    assert await scene.said() == [MediaStored, MediaStored, MigrationCompleted]


async def test_what_the_log_does_not_know_is_not_copied() -> None:
    scene = Scene()
    with pytest.raises(NothingToKeep):
        await scene.store(FIRST)
    await scene.completed()
    with pytest.raises(NothingToKeep):
        await scene.store(SECOND)
    assert not scene.copier.orders


async def test_a_log_that_answers_nothing_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene, tries = Scene(), 0
    await scene.completed()

    async def silent(where: str) -> None:
        nonlocal tries
        if where == "before append":
            tries += 1
            raise AppendOutcomeUnknown("no answer within 5 s")

    recorder = replace(scene.recorder, log=HookedLog(scene.log, silent))
    monkeypatch.setattr("storage_svc.application.recording.monotonic", lambda: 5.0 * tries)
    with pytest.raises(AppendOutcomeUnknown):
        await recorder.record(ID, RecordStored(0, 1, an_object(0), 0.1))
    assert tries == 2
