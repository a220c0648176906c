"""A run that dies at any await, and another that goes on: one completed generation, one bill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from shared.contracts.generation_events import GenerationCompleted, SubmissionStarted
from shared.event_log.port import AppendOutcomeUnknown, LogUnavailable
from tests.generation_world import World

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shared.contracts.events import AnyEvent

# What a run awaits from its request to its end: loads, appends, calls, waits, each before and
# after. `test_every_await_of_a_run_is_a_crash_point` holds the number to what there is.
AWAITS = 42

_VERBS = ("load", "append", "submit", "poll", "copy")
UNBROKEN = ["GenerationRequested", "SubmissionStarted", "GenerationSubmitted"]


async def places() -> list[str]:
    seen: list[str] = []

    async def note(where: str) -> None:
        seen.append(where)
        await asyncio.sleep(0)

    await (await World().requested()).run(note)
    return seen


async def test_every_await_of_a_run_is_a_crash_point() -> None:
    seen = await places()
    assert len(seen) == AWAITS
    assert {f"{when} {what}" for when in ("before", "after") for what in _VERBS} <= set(seen)


def completions(events: list[AnyEvent]) -> int:
    return sum(isinstance(event, GenerationCompleted) for event in events)


def calls_announced(events: list[AnyEvent]) -> int:
    return sum(isinstance(event, SubmissionStarted) for event in events)


async def died_at(world: World, dies_at: int) -> str:
    """Where the run was when it was killed; an empty word where it had ended before."""
    seen = await places()
    died = await world.run_until(dies_at)
    assert died == (dies_at <= len(seen))
    return seen[dies_at - 1] if died else ""


@pytest.mark.parametrize("dies_at", range(1, AWAITS + 1))
async def test_a_killed_run_is_finished_by_the_next_with_one_bill_where_webhooks_come(
    dies_at: int,
) -> None:
    world = await World().requested()
    await died_at(world, dies_at)

    async def callback() -> None:
        # The provider calls back about whatever it took from the run that died.
        await world.time.pause(world.provider.finished_after_s)
        for request_id in list(world.provider.taken):
            await world.call_back(request_id)

    await world.play(callback(), world.runner()(world.generation_id))
    assert completions(await world.events()) == 1
    assert len(world.provider.taken) == 1
    assert world.provider.cancelled == []


@pytest.mark.parametrize("dies_at", range(1, AWAITS + 1))
async def test_without_webhooks_only_a_call_whose_answer_died_with_its_run_is_paid_twice(
    dies_at: int,
) -> None:
    world = await World().requested()
    await died_at(world, dies_at)
    before = await world.events()
    lost = len(world.provider.taken) == 1 and len(before) == 2  # taken, and not in the log
    await world.run()
    events = await world.events()
    assert completions(events) == 1
    assert len(world.provider.taken) == (2 if lost else 1)
    # Counted: every paid call stands in the log, before it was made.
    assert calls_announced(events) >= len(world.provider.taken)
    waited = world.time.passed_s >= world.policy.unknown_wait_s
    assert waited == (calls_announced(before) == 1 and len(before) == 2)


@pytest.mark.parametrize("dies_at", [3, 7, 11])
@pytest.mark.parametrize("then_at", range(1, AWAITS, 2))
async def test_a_run_killed_twice_is_finished_by_the_third(dies_at: int, then_at: int) -> None:
    world = await World().requested()
    await world.run_until(dies_at)
    await world.run_until(then_at)
    await world.run()
    assert completions(await world.events()) == 1
    assert calls_announced(await world.events()) >= len(world.provider.taken)


def failing(
    where: str, number: int, error: Exception, *, times: int = 1
) -> Callable[[str], Awaitable[None]]:
    """Fails at the so many-th time of that, `times` in a row."""
    seen = 0

    async def fail(now_at: str) -> None:
        nonlocal seen
        await asyncio.sleep(0)
        if now_at == where:
            seen += 1
            if number <= seen < number + times:
                raise error

    return fail


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_an_append_whose_answer_is_lost_costs_neither_a_bill_nor_a_wait(
    number: int,
    written: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    world = await World().requested()
    where = "after append" if written else "before append"
    await world.run(failing(where, number, AppendOutcomeUnknown("no answer")))
    assert await world.told() == [*UNBROKEN, "GenerationCompleted"]
    assert len(world.provider.taken) == 1
    assert world.time.passed_s < world.policy.call_may_take_s


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7])
async def test_a_log_that_is_away_for_a_moment_costs_neither_a_bill_nor_a_wait(number: int) -> None:
    world = await World().requested()
    await world.run_redelivered(failing("before load", number, LogUnavailable("away")))
    assert await world.told() == [*UNBROKEN, "GenerationCompleted"]
    assert len(world.provider.taken) == 1
    assert world.time.passed_s < world.policy.call_may_take_s


@pytest.mark.parametrize("number", [1, 2])
async def test_a_log_that_goes_away_around_the_call_is_awaited_with_its_answer_in_hand(
    number: int,
) -> None:
    """Announcing (1) and recording (2): the append got through, and then nothing for 20 s."""
    world = await World().requested()
    gone_since: float | None = None
    appends = 0

    async def outage(where: str) -> None:
        nonlocal gone_since, appends
        await asyncio.sleep(0)
        if where == "after append":
            appends += 1
            if appends == number:
                gone_since = world.time.passed_s
                raise AppendOutcomeUnknown("no answer")
        if "load" in where and gone_since is not None and world.time.passed_s < gone_since + 20:
            raise LogUnavailable("away")

    await world.run(outage)
    assert await world.told() == [*UNBROKEN, "GenerationCompleted"]
    assert len(world.provider.taken) == 1
    assert world.time.passed_s < world.policy.call_may_take_s


async def test_an_announcement_found_too_late_is_not_acted_on() -> None:
    """Its claim holds for half the wait: after that another run may be about to call."""
    world = await World().requested()
    away_until = world.policy.unknown_wait_s - 1

    async def outage(where: str) -> None:
        await asyncio.sleep(0)
        if where == "after append" and world.time.passed_s < away_until:
            # The answer takes so long as if the process had been stopped meanwhile.
            await world.time.pause(away_until)

    await world.run(outage)
    told = await world.told()
    assert told.count("SubmissionStarted") == 2
    assert len(world.provider.taken) == 1


@pytest.mark.parametrize("head_start", range(40))
async def test_two_runs_at_once_make_one_paid_call(head_start: int) -> None:
    world = await World().requested()

    async def second() -> None:
        for _ in range(head_start):
            await asyncio.sleep(0)
        await world.runner()(world.generation_id)

    await world.play(world.runner()(world.generation_id), second())
    assert await world.told() == [*UNBROKEN, "GenerationCompleted"]
    assert len(world.provider.taken) == 1


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("head_start", range(0, 40, 3))
async def test_two_runs_at_once_and_an_answer_lost_make_one_paid_call(
    head_start: int, number: int
) -> None:
    world = await World().requested()

    async def second() -> None:
        for _ in range(head_start):
            await asyncio.sleep(0)
        lost = failing("after append", number, AppendOutcomeUnknown("no answer"))
        await world.runner(lost)(world.generation_id)

    lost = failing("after append", number, AppendOutcomeUnknown("no answer"))
    await world.play(world.runner(lost)(world.generation_id), second())
    assert await world.told() == [*UNBROKEN, "GenerationCompleted"]
    assert len(world.provider.taken) == 1


async def killed_after_cancelling(world: World, dies_at: int) -> None:
    """A run that is cancelled by somebody while it works, and killed."""
    cancelling = asyncio.create_task(world.cancel(after_s=1.0))
    await world.run_until(dies_at)
    await world.time.until_done(cancelling)


@pytest.mark.parametrize("dies_at", range(1, AWAITS + 1))
async def test_work_that_the_log_knows_is_stopped_after_its_cancelling_wherever_the_run_dies(
    dies_at: int,
) -> None:
    world = await World().requested()
    await killed_after_cancelling(world, dies_at)
    await world.run()
    told = await world.told()
    assert told.count("GenerationCancelled") == 1
    assert "GenerationCompleted" not in told
    known = "GenerationSubmitted" in told
    assert set(world.provider.cancelled) == ({"r1"} if known else set())
    assert len(world.provider.taken) <= 1
