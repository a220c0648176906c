"""A run beside everything that a provider, a webhook or a person does meanwhile."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from generation_svc.application.provider import (
    Failed,
    ProviderOutput,
    ProviderUnavailable,
    ResultGone,
    SubmitRefused,
    SubmitTryLater,
    Succeeded,
)
from generation_svc.application.run_generation import UnknownProvider
from generation_svc.domain.decide import AlreadyFinished, UnknownGeneration
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationSubmitted,
    SubmissionStarted,
)
from shared.errors import TryLater
from shared.event_log.port import LogUnavailable
from tests.generation_world import World

if TYPE_CHECKING:
    from tests.generation_world import Step

TAKEN = ["GenerationRequested", "SubmissionStarted", "GenerationSubmitted"]
UNKNOWN = "submission_outcome_unknown"


async def the_failure(world: World) -> GenerationFailed:
    last = (await world.events())[-1]
    assert isinstance(last, GenerationFailed)
    return last


async def test_a_run_goes_from_the_request_to_the_media() -> None:
    world = await World().requested()
    await world.run()
    assert await world.told() == [*TAKEN, "GenerationCompleted"]
    (submission,) = world.provider.submissions
    assert submission.generation_id == world.generation_id
    assert submission.model == "painter"
    assert submission.input == {"prompt": "a lighthouse"}
    assert submission.webhook_url == f"https://us/scripted/{world.generation_id}"
    _, _, submitted, completed = await world.events()
    assert isinstance(submitted, GenerationSubmitted)
    assert isinstance(completed, GenerationCompleted)
    assert completed.request_id == submitted.request_id == "r1"
    assert submitted.cancel_url == "https://queue.example/r1/cancel"


async def test_each_event_of_a_run_names_the_one_that_it_answers() -> None:
    world = World()
    world.copier.script[0] = RuntimeError("the bucket is away")
    await world.requested()
    await world.run()
    assert await world.told() == [*TAKEN, "GenerationCompleted", "StorageFailed"]
    history = await world.log.load("generation", world.generation_id)
    ids = [recorded.envelope.id for recorded in history.events]
    answered = [recorded.envelope.causationid for recorded in history.events]
    assert answered == [None, *ids[:-1]]


async def test_everything_a_run_says_belongs_to_the_request_that_began_it() -> None:
    world = await World().requested()
    await world.run()
    history = await world.log.load("generation", world.generation_id)
    ids = {recorded.envelope.correlationid for recorded in history.events}
    assert ids == {world.generation_id}


async def test_a_finished_generation_is_run_again_without_effect() -> None:
    world = await World().requested()
    await world.run()
    before = await world.told()
    await world.run()
    assert await world.told() == before
    assert len(world.provider.submissions) == 1
    assert world.provider.cancelled == []


async def test_nothing_is_run_for_an_id_that_nobody_asked_for() -> None:
    world = World()
    world.generation_id = "nobody"
    with pytest.raises(UnknownGeneration):
        await world.run()


async def test_a_provider_that_is_not_set_up_here_is_named() -> None:
    world = await World().requested()
    runner = world.runner()
    elsewhere = type(runner)(
        decider=runner.decider,
        finish=runner.finish,
        providers={},
        webhook_url=runner.webhook_url,
        pause=runner.pause,
    )
    with pytest.raises(UnknownProvider, match="'scripted'"):
        await world.play(elsewhere(world.generation_id))
    assert await world.told() == ["GenerationRequested"]


@pytest.mark.parametrize("after_s", [0.5, 2.5, 5.0, 11.0, 11.7, 14.0, 30.0])
async def test_the_webhook_and_the_poll_both_report_and_one_of_them_completes(
    after_s: float,
) -> None:
    world = await World().requested()
    world.provider.finished_after_s = 0.0 if after_s < 5 else 10.0
    await world.play(world.runner()(world.generation_id), world.webhook("r1", after_s=after_s))
    told = await world.told()
    assert told.count("GenerationCompleted") == 1
    assert len(world.provider.taken) == 1
    assert world.provider.cancelled == []


async def test_a_lost_answer_is_found_again_by_its_webhook() -> None:
    world = await World().requested()
    world.provider.submits = ["lose_answer"]
    with capture_logs() as lines:
        await world.play(world.runner()(world.generation_id), world.webhook("r1", after_s=300.0))
    assert await world.told() == ["GenerationRequested", "SubmissionStarted", "GenerationCompleted"]
    assert len(world.provider.taken) == 1
    assert [line["attempt"] for line in lines if line["event"] == UNKNOWN] == [1]


async def test_a_lost_answer_without_a_webhook_is_counted_and_the_call_made_again() -> None:
    world = await World().requested()
    world.provider.submits = ["lose_answer", "lose_request"]
    with capture_logs() as lines:
        await world.run()
    calls = [event for event in await world.events() if isinstance(event, SubmissionStarted)]
    assert [call.attempt for call in calls] == [1, 2, 3]
    assert len({call.claim for call in calls}) == 3
    assert list(world.provider.taken) == ["r1", "r2"]
    assert [line["attempt"] for line in lines if line["event"] == UNKNOWN] == [1, 2]
    assert world.time.passed_s >= 2 * world.policy.unknown_wait_s


async def test_a_call_whose_run_was_killed_is_counted_once_by_the_run_that_waits_for_it() -> None:
    world = await World().requested()
    assert await world.run_until(8)  # the provider has answered, the log does not know
    with capture_logs() as lines:
        await world.run()
    assert [line["attempt"] for line in lines if line["event"] == UNKNOWN] == [1]


async def test_a_call_that_is_still_under_way_elsewhere_is_not_counted_as_lost() -> None:
    world = await World().requested()
    world.provider.answers_after_s = 30.0
    run = world.runner()
    with capture_logs() as lines:
        await world.play(run(world.generation_id), world.runner()(world.generation_id))
    assert await world.told() == [*TAKEN, "GenerationCompleted"]
    assert not [line for line in lines if line["event"] == UNKNOWN]


async def test_an_earlier_call_that_made_the_media_completes_it_and_the_later_one_is_stopped() -> (
    None
):
    world = await World().requested()
    world.provider.submits = ["lose_answer", "take"]
    world.provider.finished_after_s = 10_000.0
    late = world.policy.unknown_wait_s + 60.0
    await world.play(world.runner()(world.generation_id), world.webhook("r1", after_s=late))
    completed = (await world.events())[-1]
    assert isinstance(completed, GenerationCompleted)
    assert completed.request_id == "r1"
    assert world.provider.cancelled == ["r2"]


async def test_a_busy_provider_is_called_again_when_it_said_and_billed_once() -> None:
    world = await World().requested()
    world.provider.submits = [SubmitTryLater("429", retry_after_s=90.0)]
    world.provider.answers_after_s = 0.0
    with capture_logs() as lines:
        await world.run()
    assert await world.told() == [*TAKEN[:2], *TAKEN[1:], "GenerationCompleted"]
    assert 90.0 <= world.time.passed_s < 90.0 + 60.0
    assert len(world.provider.taken) == 1
    assert not [line for line in lines if line["event"] == UNKNOWN]


async def test_a_refused_request_fails_at_once() -> None:
    world = await World().requested()
    world.provider.submits = [SubmitRefused("bad_input", "no such size", billed=False)]
    await world.run()
    assert await the_failure(world) == GenerationFailed(
        code="bad_input", detail="no such size", retryable=False, billed=False
    )
    assert len(world.provider.submissions) == 1


async def test_a_refusal_is_kept_in_hand_while_the_log_is_away() -> None:
    world = await World().requested()
    world.provider.submits = [SubmitRefused("bad_input", "no such size", billed=False)]

    async def outage(where: str) -> None:
        await asyncio.sleep(0)
        if world.provider.submissions and world.time.passed_s < 30 and "load" in where:
            raise LogUnavailable("away")

    await world.run(outage)
    assert (await the_failure(world)).code == "bad_input"
    assert len(world.provider.submissions) == 1


async def test_a_providers_failure_is_the_generations() -> None:
    world = await World().requested()
    world.provider.result = Failed("nsfw", "refused", retryable=False, billed=True)
    await world.run()
    assert await the_failure(world) == GenerationFailed(
        code="nsfw", detail="refused", retryable=False, billed=True
    )
    assert world.provider.cancelled == []


async def test_an_answer_without_media_is_a_failure() -> None:
    world = await World().requested()
    world.provider.result = Succeeded(())
    await world.run()
    assert (await the_failure(world)).code == "no_media"


async def test_a_result_that_the_provider_forgot_fails_it() -> None:
    world = await World().requested()
    world.provider.polls = [ResultGone("forgotten")]
    await world.run()
    failure = await the_failure(world)
    assert (failure.code, failure.detail) == ("result_gone", "forgotten")


async def test_a_generation_cancelled_before_its_call_is_never_submitted() -> None:
    world = await World().requested()
    await world.play(world.cancel())
    await world.run()
    assert await world.told() == ["GenerationRequested", "GenerationCancelled"]
    assert world.provider.submissions == []


async def test_a_generation_cancelled_during_its_call_is_stopped_at_the_provider() -> None:
    world = await World().requested()
    world.provider.answers_after_s = 5.0
    await world.play(world.runner()(world.generation_id), world.cancel(after_s=2.0))
    assert await world.told() == [*TAKEN[:2], "GenerationCancelled", "GenerationSubmitted"]
    assert world.provider.cancelled == ["r1"]


async def test_a_provider_that_does_not_hear_of_the_cancelling_is_told_by_the_next_run() -> None:
    world = await World().requested()
    world.provider.answers_after_s = 5.0
    world.provider.cancels = [ProviderUnavailable("no answer"), None]
    with pytest.raises(ProviderUnavailable):
        await world.play(world.runner()(world.generation_id), world.cancel(after_s=2.0))
    assert world.provider.cancelled == []
    await world.run()
    assert world.provider.cancelled == ["r1"]


async def test_a_generation_cancelled_while_it_runs_is_stopped_at_the_provider() -> None:
    world = await World().requested()
    await world.play(world.runner()(world.generation_id), world.cancel(after_s=6.0))
    assert await world.told() == [*TAKEN, "GenerationCancelled"]
    assert world.provider.cancelled == ["r1"]


@pytest.mark.parametrize("step", ["lose_answer", "lose_request"])
async def test_a_generation_cancelled_while_its_call_is_unknown_is_not_called_again(
    step: Step,
) -> None:
    world = await World().requested()
    world.provider.submits = [step]
    await world.play(world.runner()(world.generation_id), world.cancel(after_s=30.0))
    assert await world.told() == [*TAKEN[:2], "GenerationCancelled"]
    assert len(world.provider.submissions) == 1
    assert world.time.passed_s < world.policy.call_may_take_s


async def test_a_generation_cancelled_between_two_calls_is_not_called_again() -> None:
    world = await World().requested()
    world.provider.submits = [SubmitTryLater("429", retry_after_s=60.0)]
    await world.play(world.runner()(world.generation_id), world.cancel(after_s=30.0))
    assert await world.told() == [*TAKEN[:2], "GenerationCancelled"]
    assert len(world.provider.submissions) == 1


async def test_a_webhook_after_the_cancelling_changes_nothing() -> None:
    world = await World().requested()
    await world.play(world.runner()(world.generation_id), world.cancel(after_s=6.0))
    await world.call_back("r1")
    assert (await world.told())[-1] == "GenerationCancelled"


async def test_what_is_completed_is_not_cancelled_and_nobody_is_told_to_stop() -> None:
    world = await World().requested()
    await world.run()
    with pytest.raises(AlreadyFinished):
        await world.play(world.cancel())
    assert world.provider.cancelled == []
    assert not any(isinstance(event, GenerationCancelled) for event in await world.events())


async def test_cancelling_twice_is_one_cancellation() -> None:
    world = await World().requested()
    await world.play(world.cancel(), world.cancel())
    assert await world.told() == ["GenerationRequested", "GenerationCancelled"]


class Stopping(TryLater):
    """The service is shutting down."""


async def test_a_shutdown_ends_a_run_at_its_next_wait_and_the_next_run_goes_on() -> None:
    world = await World().requested()

    async def stopping(_seconds: float) -> None:
        raise Stopping("now")

    with pytest.raises(Stopping):
        await world.play(world.runner(pause=stopping)(world.generation_id))
    assert await world.told() == TAKEN
    await world.run()
    assert await world.told() == [*TAKEN, "GenerationCompleted"]
    assert len(world.provider.taken) == 1


async def test_a_shutdown_while_the_log_is_away_leaves_the_requests_name_with_a_person() -> None:
    world = await World().requested()

    async def stopping(_seconds: float) -> None:
        raise Stopping("now")

    async def outage(where: str) -> None:
        await asyncio.sleep(0)
        if world.provider.taken and "load" in where:
            raise LogUnavailable("away")

    with capture_logs() as lines, pytest.raises(Stopping):
        await world.play(world.runner(outage, pause=stopping)(world.generation_id))
    (line,) = [line for line in lines if line["event"] == "submission_not_recorded"]
    assert line["request_id"] == "r1"
    assert line["log_level"] == "error"


async def test_a_log_that_stays_away_ends_the_run_when_another_might_call_again() -> None:
    world = await World().requested()

    async def outage(where: str) -> None:
        await asyncio.sleep(0)
        if world.provider.taken and "load" in where:
            raise LogUnavailable("away")

    with capture_logs() as lines, pytest.raises(LogUnavailable):
        await world.run(outage)
    assert [line["request_id"] for line in lines if line["log_level"] == "error"] == ["r1"]
    assert 0 <= world.time.passed_s - world.policy.unknown_wait_s < world.policy.call_may_take_s


async def test_several_outputs_complete_in_the_providers_order() -> None:
    world = await World().requested()
    urls = [f"https://media.example/{name}" for name in ("z", "a", "m")]
    world.provider.result = Succeeded(tuple(ProviderOutput(url) for url in urls))
    await world.run()
    completed = (await world.events())[-1]
    assert isinstance(completed, GenerationCompleted)
    assert [output.source_url for output in completed.outputs] == urls
