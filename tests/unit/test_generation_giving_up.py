"""What becomes of a run when the provider does not take it, does not end it, or is not heard of."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from generation_svc.application.provider import (
    Failed,
    ProviderUnavailable,
    ResultGone,
    SubmitTryLater,
)
from generation_svc.application.run_generation import ProviderStaysAway, StillAtWork
from generation_svc.application.run_policy import RunPolicy
from shared.contracts.generation_events import (
    GenerationCompleted,
    GenerationFailed,
    SubmissionStarted,
)
from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed
from tests.generation_world import World

if TYPE_CHECKING:
    from tests.generation_world import Step

TAKEN = ["GenerationRequested", "SubmissionStarted", "GenerationSubmitted"]
UNKNOWN = "submission_outcome_unknown"
AWAY = ProviderUnavailable("no answer")
BUSY = SubmitTryLater("429: the queue is full")


async def the_failure(world: World) -> GenerationFailed:
    last = (await world.events())[-1]
    assert isinstance(last, GenerationFailed)
    return last


async def calls(world: World) -> list[SubmissionStarted]:
    return [event for event in await world.events() if isinstance(event, SubmissionStarted)]


async def given_up_unheard() -> World:
    """A generation that was taken and finished, by a provider that is not heard of any more."""
    world = await World().requested()
    world.provider.polls = [AWAY] * 10_000
    with pytest.raises(ProviderStaysAway):
        await world.run()
    return world


async def test_a_provider_that_is_busy_for_ever_fails_it_in_the_end_and_bills_nothing() -> None:
    world = await World().requested()
    world.provider.submits = [BUSY] * 10_000
    await world.run()
    failure = await the_failure(world)
    assert (failure.code, failure.retryable, failure.billed) == ("not_submitted", True, False)
    assert not failure.given_up
    assert "the queue is full" in failure.detail
    assert world.provider.taken == {}
    limit_s = world.policy.max_run_s
    assert limit_s - world.policy.longest_resubmit_wait_s < world.time.passed_s <= limit_s
    assert len(await calls(world)) > world.policy.max_submissions


async def test_a_provider_that_was_busy_longer_than_any_number_of_calls_is_paid_once() -> None:
    world = await World(policy=RunPolicy(max_submissions=2)).requested()
    world.provider.submits = [BUSY] * 20
    await world.run()
    assert (await world.told())[-1] == "GenerationCompleted"
    assert len(world.provider.taken) == 1
    assert [call.not_taken for call in await calls(world)] == [None, *range(1, 21)]


async def test_calls_that_were_not_taken_leave_room_for_those_whose_answers_are_lost() -> None:
    world = await World(policy=RunPolicy(max_submissions=2)).requested()
    world.provider.submits = [BUSY, BUSY, BUSY, "lose_request", "lose_request", "lose_request"]
    await world.run()
    assert [(call.attempt, call.not_taken) for call in await calls(world)] == [
        (1, None), (2, 1), (3, 2), (4, 3), (5, 3),
    ]  # fmt: skip
    failure = await the_failure(world)
    assert (failure.code, failure.billed, failure.given_up) == ("outcome_unknown", None, True)


async def test_what_may_have_been_billed_before_the_provider_was_busy_is_said() -> None:
    world = await World().requested()
    world.provider.submits = ["lose_request", *[BUSY] * 10_000]
    await world.run()
    failure = await the_failure(world)
    assert (failure.code, failure.billed, failure.given_up) == ("not_submitted", None, True)
    assert "1 paid calls were lost" in failure.detail


async def test_a_provider_that_wants_to_be_left_alone_for_too_long_is_not_called_again() -> None:
    world = await World().requested()
    world.provider.submits = [BUSY, SubmitTryLater("closed today", retry_after_s=3600.0)]
    await world.run()
    failure = await the_failure(world)
    assert "closed today; it asks to be left alone for 3600 s" in failure.detail
    assert len(world.provider.submissions) == 2
    assert world.time.passed_s < 60


async def test_answers_that_are_always_lost_come_to_an_end() -> None:
    world = await World(policy=RunPolicy(max_submissions=3)).requested()
    world.provider.submits = ["lose_request"] * 9
    with capture_logs() as lines:
        await world.run()
    failure = await the_failure(world)
    assert (failure.code, failure.retryable, failure.billed) == ("outcome_unknown", True, None)
    assert len(world.provider.submissions) == 3
    assert [line["attempt"] for line in lines if line["event"] == UNKNOWN] == [1, 2, 3]


@pytest.mark.parametrize("step", ["lose_answer", "lose_request"])
async def test_a_report_that_comes_after_giving_up_on_lost_answers_is_the_users(
    step: Step,
) -> None:
    world = await World(policy=RunPolicy(max_submissions=1)).requested()
    world.provider.submits = [step]
    await world.run()
    assert (await the_failure(world)).given_up
    await world.play(world.webhook("r1", after_s=600.0))
    completed = (await world.events())[-1]
    assert isinstance(completed, GenerationCompleted)
    assert completed.request_id == "r1"


async def test_a_provider_that_is_not_heard_of_for_a_while_is_waited_for() -> None:
    world = await World().requested()
    world.provider.polls = [AWAY] * 100
    await world.run()
    assert await world.told() == [*TAKEN, "GenerationCompleted"]
    assert 99 * world.policy.longest_poll_s * 0.8 < world.time.passed_s < world.policy.max_run_s


async def test_a_provider_that_is_not_heard_of_any_more_ends_what_users_wait_for() -> None:
    world = await given_up_unheard()
    failure = await the_failure(world)
    assert (failure.code, failure.retryable, failure.billed) == ("provider_unreachable", True, None)
    assert "no answer" in failure.detail
    limit_s = world.policy.max_run_s
    assert limit_s <= world.time.passed_s < limit_s + 2 * world.policy.longest_poll_s


async def test_its_webhook_still_completes_what_was_given_up_on() -> None:
    world = await given_up_unheard()
    await world.call_back("r1")
    assert await world.told() == [*TAKEN, "GenerationFailed", "GenerationCompleted"]


async def test_a_retry_still_completes_what_was_given_up_on() -> None:
    world = await given_up_unheard()
    world.provider.polls = []
    await world.run()
    assert await world.told() == [*TAKEN, "GenerationFailed", "GenerationCompleted"]
    assert len(world.provider.taken) == 1
    assert world.provider.cancelled == []


async def test_links_of_what_completes_late_are_as_old_as_the_work() -> None:
    world = await given_up_unheard()
    await world.play(world.webhook("r1", after_s=600.0))
    completed = (await world.events())[-1]
    assert isinstance(completed, GenerationCompleted)
    assert completed.outputs[0].expires_at < world.time.now, "asked for long ago, dead by now"


async def test_storage_that_is_away_does_not_fail_what_completes_late() -> None:
    world = await given_up_unheard()
    world.copier.script[0] = CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "away")
    await world.call_back("r1")
    told = await world.told()
    assert told[-3:] == ["GenerationFailed", "GenerationCompleted", "StorageFailed"]


async def test_a_retry_while_the_provider_is_still_away_or_at_work_comes_again() -> None:
    world = await given_up_unheard()
    with pytest.raises(ProviderUnavailable):
        await world.run()
    world.provider.polls = []
    world.provider.finished_after_s = 1e6
    with pytest.raises(StillAtWork):
        await world.run()
    assert (await world.told())[-1] == "GenerationFailed"


@pytest.mark.parametrize("found", [ResultGone("forgotten"), None])
async def test_a_retry_that_finds_nothing_leaves_the_end_as_it_is(found: Exception | None) -> None:
    world = await given_up_unheard()
    world.provider.polls = [found]
    world.provider.result = Failed("nsfw", "refused", retryable=False, billed=True)
    await world.run()
    assert (await world.told()).count("GenerationFailed") == 1
    assert (await the_failure(world)).code == "provider_unreachable"


async def test_one_poll_without_an_answer_after_a_long_absence_gives_up_nothing() -> None:
    world = await World().requested()
    assert await world.run_until(16)  # at its first poll
    await world.play(world.time.pause(2 * world.policy.max_run_s))
    world.provider.polls = [AWAY] * world.policy.tolerated_poll_failures
    await world.run()
    assert (await world.told())[-1] == "GenerationCompleted"


async def test_a_webhook_in_the_moment_of_giving_up_is_the_users() -> None:
    world = await World().requested()
    world.provider.polls = [AWAY] * 10_000
    reported = False

    async def report(where: str) -> None:
        nonlocal reported
        await asyncio.sleep(0)
        if where == "before poll" and world.time.passed_s >= 3600.0 and not reported:
            reported = True
            await world.call_back("r1")

    await world.run(report)
    assert await world.told() == [*TAKEN, "GenerationCompleted"]


async def test_work_without_an_end_is_given_up_and_stopped() -> None:
    world = await World().requested()
    world.provider.finished_after_s = 1e6
    await world.run()
    failure = await the_failure(world)
    assert (failure.code, failure.retryable) == ("timed_out", True)
    assert world.provider.cancelled == ["r1"]
    limit_s = world.policy.max_run_s
    assert limit_s <= world.time.passed_s < limit_s + 2 * world.policy.longest_poll_s


async def test_a_provider_that_cannot_stop_work_keeps_nobody_from_giving_it_up() -> None:
    world = await World().requested()
    world.provider.finished_after_s = 1e6
    world.provider.cancels = [ProviderUnavailable("405")] * 100
    with capture_logs() as lines:
        await world.run()
    assert (await the_failure(world)).code == "timed_out"
    assert [line["event"] for line in lines] == ["given_up_and_not_stopped"]


async def test_a_result_found_after_a_long_absence_is_not_given_up() -> None:
    world = await World().requested()
    assert await world.run_until(16)  # at its first poll
    await world.play(world.time.pause(2 * world.policy.max_run_s))
    await world.run()
    assert (await world.told())[-1] == "GenerationCompleted"


async def test_a_result_that_comes_while_it_is_given_up_is_the_users() -> None:
    world = await World().requested()
    world.provider.finished_after_s = 1e6
    given_up_at = world.policy.max_run_s + 2.0
    reported = False

    async def report(where: str) -> None:
        nonlocal reported
        await asyncio.sleep(0)
        if where == "after poll" and world.time.passed_s >= given_up_at and not reported:
            reported = True
            await world.call_back("r1")

    await world.run(report)
    assert (await world.told())[-1] == "GenerationCompleted"
    assert world.provider.cancelled == []
