"""What a provider's result becomes, and whom it is believed from."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from generation_svc.application.accept_webhook import AcceptWebhook, webhook_token
from generation_svc.application.deciding import MAX_TRIES, Decided
from generation_svc.application.finish_generation import FinishGeneration
from generation_svc.application.provider import (
    ProviderOutput,
    Succeeded,
    WebhookCall,
    WebhookRejected,
)
from generation_svc.application.request_generation import generation_id_for, request_generation
from generation_svc.domain.commands import Request, StartSubmission
from generation_svc.domain.decide import IdempotencyKeyReused, UnknownGeneration
from generation_svc.domain.state import Done
from shared.contracts.generation_events import GenerationCompleted, StorageFailed
from shared.contracts.reasons import ReasonCode
from shared.event_log.port import AppendOutcomeUnknown, LogUnavailable, VersionConflict
from shared.media.copying import CopyFailed
from tests.generation_events import NOON
from tests.generation_world import (
    MEDIA,
    REQUEST,
    SECRET,
    TRAITS,
    HookedLog,
    World,
    give_way,
)

if TYPE_CHECKING:
    from shared.contracts.facts import Family
    from shared.event_log.port import History

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
BUCKET_AWAY = CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "503")


async def finished(world: World, result: Succeeded = MEDIA) -> GenerationCompleted:
    decided = await world.finish(world.generation_id, result, request_id="r1", traits=TRAITS)
    assert isinstance(decided.state, Done)
    assert isinstance(decided.state.outcome, GenerationCompleted)
    return decided.state.outcome


async def test_media_is_completed_with_its_copies() -> None:
    world = await World().requested()
    completed = await finished(world)
    assert completed.outputs[0].stored is not None
    assert (completed.user_id, completed.provider, completed.model) == (
        "ann",
        "scripted",
        "painter",
    )
    assert await world.told() == ["GenerationRequested", "GenerationCompleted"]


async def test_media_is_completed_without_a_bucket_and_says_what_is_missing() -> None:
    world = await World().requested()
    world.copier.script = {0: BUCKET_AWAY, 2: BUCKET_AWAY}
    urls = ["https://media.example/z", "https://media.example/a", "https://media.example/m"]
    completed = await finished(world, Succeeded(tuple(ProviderOutput(url) for url in urls)))
    assert [output.source_url for output in completed.outputs] == urls
    assert [output.stored is None for output in completed.outputs] == [True, False, True]
    last = (await world.events())[-1]
    assert isinstance(last, StorageFailed)
    assert [(failure.index, failure.reason) for failure in last.failures] == [
        (0, ReasonCode.BUCKET_UNAVAILABLE),
        (2, ReasonCode.BUCKET_UNAVAILABLE),
    ]


async def test_a_result_reported_twice_is_copied_once() -> None:
    world = await World().requested()
    first = await finished(world)
    assert await finished(world) == first
    assert len(world.copier.orders) == 1
    assert await world.told() == ["GenerationRequested", "GenerationCompleted"]


async def test_a_link_dies_when_the_provider_says_or_else_counted_from_the_submission() -> None:
    world = await World().requested()
    await world.decider.handle(world.generation_id, StartSubmission(1, "claim"))
    await world.play(world.time.pause(500.0))  # a webhook that comes late
    says = NOON + timedelta(seconds=77)
    completed = await finished(
        world,
        Succeeded((ProviderOutput("https://a"), ProviderOutput("https://b", expires_at=says))),
    )
    assert completed.outputs[0].expires_at == NOON + timedelta(seconds=TRAITS.link_lifetime_s)
    assert completed.outputs[1].expires_at == says


async def test_nobody_asked_so_nothing_is_copied() -> None:
    world = World()
    world.generation_id = "nobody"
    with pytest.raises(UnknownGeneration):
        await finished(world)
    assert world.copier.orders == []


async def test_a_log_that_is_away_is_said_so_that_the_provider_calls_again() -> None:
    world = await World().requested()

    async def away(where: str) -> None:
        if where == "before append":
            raise LogUnavailable("away")

    decider = type(world.decider)(
        HookedLog(world.log, away), clock=world.decider.clock, source="test"
    )
    finish = FinishGeneration(decider, world.copier, budget_s=5.0)
    with pytest.raises(LogUnavailable):
        await finish(world.generation_id, MEDIA, request_id="r1", traits=TRAITS)
    assert await world.told() == ["GenerationRequested"]
    await finished(world)


def accept(world: World) -> AcceptWebhook:
    return AcceptWebhook(
        world.finish, {"scripted": world.provider}, SECRET, clock=lambda: world.time.now
    )


CALL = WebhookCall({"signature": "good"}, json.dumps({"request_id": "r1"}).encode())


async def called_back(
    world: World, *, provider: str = "scripted", token: str | None = None, call: WebhookCall = CALL
) -> Decided:
    token = webhook_token(SECRET, provider, world.generation_id) if token is None else token
    return await accept(world)(provider, world.generation_id, token, call)


async def test_a_signed_callback_with_its_token_completes() -> None:
    world = await World().requested()
    decided = await called_back(world)
    assert decided.position == 2
    assert await world.told() == ["GenerationRequested", "GenerationCompleted"]


@pytest.mark.parametrize(
    "token",
    [
        "",
        "0" * 40,
        "ü" * 40,
        webhook_token(SECRET, "scripted", "another"),
        webhook_token(SECRET, "other", "g"),
        webhook_token(b"other secret", "scripted", "g"),
    ],
)
async def test_a_callback_with_another_token_is_not_believed(token: str) -> None:
    world = await World().requested()
    with pytest.raises(WebhookRejected):
        await called_back(world, token=token)
    assert await world.told() == ["GenerationRequested"]


async def test_a_callback_of_a_provider_that_is_not_set_up_is_not_believed() -> None:
    world = await World().requested()
    with pytest.raises(WebhookRejected):
        await called_back(world, provider="fal")


async def test_a_callback_with_a_wrong_signature_is_not_believed() -> None:
    world = await World().requested()
    with pytest.raises(WebhookRejected):
        await called_back(world, call=WebhookCall({"signature": "bad"}, CALL.body))
    assert await world.told() == ["GenerationRequested"]


KEYED = Request("ann", "scripted", "painter", {"prompt": "x"}, idempotency_key="order-17")


def test_a_key_names_one_generation_of_one_user() -> None:
    assert generation_id_for(KEYED) == generation_id_for(KEYED)
    others = [
        Request("bob", "scripted", "painter", {"prompt": "x"}, idempotency_key="order-17"),
        Request("ann", "scripted", "painter", {"prompt": "x"}, idempotency_key="order-18"),
    ]
    assert len({generation_id_for(request) for request in (KEYED, *others)}) == 3
    assert generation_id_for(REQUEST) != generation_id_for(REQUEST)


async def test_the_same_key_and_body_is_accepted_once() -> None:
    world = World()
    first = await request_generation(KEYED, decider=world.decider)
    second = await request_generation(KEYED, decider=world.decider)
    assert (first.repeated, second.repeated) == (False, True)
    assert (first.generation_id, first.position) == (second.generation_id, second.position)
    other = Request("ann", "scripted", "painter", {"prompt": "y"}, idempotency_key="order-17")
    with pytest.raises(IdempotencyKeyReused):
        await request_generation(other, decider=world.decider)
    assert await world.log.last_position() == 1


async def test_a_request_whose_answer_was_lost_is_in_the_log_once() -> None:
    world = World()
    lost = iter([AppendOutcomeUnknown("no answer")])

    async def lose(where: str) -> None:
        if where == "after append" and (error := next(lost, None)):
            raise error

    decider = type(world.decider)(
        HookedLog(world.log, lose), clock=world.decider.clock, source="test"
    )
    accepted = await request_generation(KEYED, decider=decider)
    assert accepted.position == 1
    assert await world.log.last_position() == 1


async def test_a_decision_that_always_loses_ends_as_a_conflict() -> None:
    world = await World().requested()
    tries = 0

    async def lose(where: str) -> None:
        nonlocal tries
        await give_way(where)
        if where == "before append":
            tries += 1
            raise VersionConflict("somebody was faster")

    decider = type(world.decider)(
        HookedLog(world.log, lose), clock=world.decider.clock, source="test"
    )
    with pytest.raises(VersionConflict):
        await decider.handle(world.generation_id, StartSubmission(1, "claim"))
    assert tries == MAX_TRIES


async def test_a_log_that_answers_nothing_is_not_asked_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World().requested()
    tries = 0

    async def silent(where: str) -> None:
        nonlocal tries
        if where == "before append":
            tries += 1
            raise AppendOutcomeUnknown("no answer within 5 s")

    decider = type(world.decider)(
        HookedLog(world.log, silent), clock=world.decider.clock, source="test"
    )
    monkeypatch.setattr("generation_svc.application.deciding.monotonic", lambda: 5.0 * tries)
    with pytest.raises(AppendOutcomeUnknown):
        await decider.handle(world.generation_id, StartSubmission(1, "claim"))
    assert tries == 2


async def test_a_replica_that_shows_an_older_log_makes_no_second_event() -> None:
    world = await World().requested()
    older = await world.log.load("generation", world.generation_id)
    await world.decider.handle(world.generation_id, StartSubmission(1, "claim"))

    class Behind(HookedLog):
        lags = 2

        async def load(
            self, family: Family, generation_id: str, *, until: int | None = None
        ) -> History:
            self.lags -= 1
            if self.lags >= 0:
                return older
            return await self.inner.load(family, generation_id, until=until)

    behind = Behind(world.log, give_way)
    decider = type(world.decider)(behind, clock=world.decider.clock, source="test")
    decided = await decider.handle(world.generation_id, StartSubmission(1, "other claim"))
    assert decided.new == ()
    assert await world.told() == ["GenerationRequested", "SubmissionStarted"]
    behind.lags = 1000
    with pytest.raises(VersionConflict):
        await decider.handle(world.generation_id, StartSubmission(1, "other claim"))


async def test_what_a_callers_request_causes_belongs_to_the_callers_trace() -> None:
    world = World()
    accepted = await request_generation(REQUEST, decider=world.decider, traceparent=TRACE)
    world.generation_id = accepted.generation_id
    await world.run()
    history = await world.log.load("generation", world.generation_id)
    assert [recorded.envelope.traceparent for recorded in history.events] == [TRACE] * 4


async def test_what_a_callers_request_causes_bears_the_callers_correlation_id() -> None:
    world = World()
    accepted = await request_generation(REQUEST, decider=world.decider, correlation_id="order-7")
    world.generation_id = accepted.generation_id
    await world.run()
    history = await world.log.load("generation", world.generation_id)
    assert [recorded.envelope.correlationid for recorded in history.events] == ["order-7"] * 4
