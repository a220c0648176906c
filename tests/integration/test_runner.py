"""The runner on real NATS: every trap of its stack, and every way that work can go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from generation_svc.adapters.nats_runner.dead_letters import NoSuchDeadLetter
from generation_svc.adapters.nats_runner.delivery import DeliveryPolicy
from generation_svc.adapters.nats_runner.runner import DURABLE, RETRY_DURABLE
from shared.errors import Refused, TryLater
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.jetstream import jetstream_of
from tests.runner_world import QUICK, RunnerWorld, Work, eventually, runner_world

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.subjects import Subjects
    from tests.servers.port import OwnNats


@pytest.fixture
async def world(nats_url: str, stream: str, subjects: Subjects) -> AsyncGenerator[RunnerWorld]:
    async with runner_world(nats_url, stream, subjects) as made:
        yield made


@pytest.fixture
async def own_world(own_nats: OwnNats, subjects: Subjects) -> AsyncGenerator[RunnerWorld]:
    async with runner_world(own_nats.url, "OWN", subjects) as made:
        yield made


async def test_a_request_is_run_once_and_settled_and_other_events_start_nothing(
    world: RunnerWorld,
) -> None:
    work = Work()
    async with world.running(work):
        await world.request("g1")
        await world.cancel("g2")
        await world.request("g3")
        await eventually(lambda: len(work.done) == 2)
        await eventually(world.settled)
    assert sorted(work.begun) == ["g1", "g3"]


async def test_a_failing_run_becomes_a_dead_letter_and_a_retry_runs_it_again(
    world: RunnerWorld,
) -> None:
    mended = False

    async def fails(_generation_id: str) -> None:
        if not mended:
            raise TryLater("the provider is away")

    work = Work(fails)

    async def is_dead() -> bool:
        return len(await world.dead_letters.all()) == 1

    async with world.running(work):
        await world.request("g1")
        await eventually(is_dead)
        await eventually(world.settled)
        assert work.begun == ["g1"] * QUICK.max_deliveries
        letter = await world.dead_letters.get("g1")
        assert (letter.reason, letter.detail) == ("TryLater", "the provider is away")
        assert letter.deliveries == QUICK.max_deliveries

        mended = True
        await world.dead_letters.retry("g1")
        await eventually(lambda: work.done == ["g1"])
        with pytest.raises(NoSuchDeadLetter):
            await world.dead_letters.get("g1")


async def test_a_refused_run_is_not_tried_again(world: RunnerWorld) -> None:
    async def refuses(_generation_id: str) -> None:
        raise Refused("no such provider")

    async def is_dead() -> bool:
        return [letter.detail for letter in await world.dead_letters.all()] == ["no such provider"]

    work = Work(refuses)
    async with world.running(work):
        await world.request("g1")
        await eventually(is_dead)
        await eventually(world.settled)
    assert work.begun == ["g1"]


async def test_a_defect_in_one_run_is_a_failed_delivery_and_others_flow(
    world: RunnerWorld,
) -> None:
    async def breaks(generation_id: str) -> None:
        if generation_id == "g1" and work.begun.count("g1") == 1:
            raise ZeroDivisionError

    work = Work(breaks)
    async with world.running(work):
        await world.request("g1")
        await world.request("g2")
        await eventually(lambda: sorted(work.done) == ["g1", "g2"])


async def test_a_run_longer_than_ack_wait_holds_its_message(world: RunnerWorld) -> None:
    policy = DeliveryPolicy(ack_wait_s=0.5, max_deliveries=3)
    over = asyncio.Event()

    async def until_told(_generation_id: str) -> None:
        await over.wait()

    work = Work(until_told)
    async with world.running(work, policy) as (runner, _):
        await world.request("g1")
        await eventually(lambda: work.begun == ["g1"])
        delivered = runner.health
        # Another generation that comes and goes, often enough that ack_wait passes many times.
        for number in range(6):
            begun = asyncio.get_running_loop().time()
            await eventually(
                lambda begun=begun: asyncio.get_running_loop().time() - begun > policy.ack_wait_s
            )
            assert work.begun == ["g1"], f"delivered again after {number + 1} waits"
        over.set()
        await eventually(world.settled)
        assert delivered.problem is None
    assert await world.redelivered() == 0


async def test_a_shutdown_hands_its_runs_to_the_next_runner_at_once(world: RunnerWorld) -> None:
    pausing = Work()
    async with world.running(pausing, DeliveryPolicy(ack_wait_s=60)) as (_, interruptions):

        async def pauses(_generation_id: str) -> None:
            await interruptions.pause(60)

        pausing.script = pauses
        await world.request("g1")
        await eventually(lambda: pausing.begun == ["g1"])
    assert pausing.done == []

    next_one = Work()
    async with world.running(next_one, DeliveryPolicy(ack_wait_s=60)):
        await eventually(lambda: next_one.done == ["g1"], deadline_s=10)


@pytest.mark.parametrize("max_workers", [8, 64])
async def test_a_shutdown_while_work_keeps_coming_leaves_none_of_it_behind(
    world: RunnerWorld, max_workers: int
) -> None:
    ids = {f"g{number}" for number in range(60)}
    policy = DeliveryPolicy(ack_wait_s=60)
    pausing = Work()
    async with world.running(pausing, policy, max_workers=max_workers) as (_, interruptions):

        async def pauses(_generation_id: str) -> None:
            await interruptions.pause(60)

        pausing.script = pauses
        for generation_id in ids:
            await world.request(generation_id)
        await eventually(lambda: len(pausing.begun) >= 8)

    next_one = Work()
    async with world.running(next_one, policy):
        await eventually(lambda: set(next_one.done) == ids)


async def test_a_run_whose_generation_ended_elsewhere_does_not_wait_for_its_next_poll(
    world: RunnerWorld,
) -> None:
    work = Work()
    async with world.running(work) as (_, interruptions):

        async def waits_for_news(_generation_id: str) -> None:
            await interruptions.pause(3600)

        work.script = waits_for_news
        await world.request("g1")
        await eventually(lambda: work.begun == ["g1"])
        assert work.done == []
        await world.cancel("g1")
        await eventually(lambda: work.done == ["g1"])
        await eventually(world.settled)


async def test_two_runners_share_the_work_and_every_generation_runs_once(
    world: RunnerWorld,
) -> None:
    async def takes_a_moment(_generation_id: str) -> None:
        await asyncio.sleep(0.02)

    one, other = Work(takes_a_moment), Work(takes_a_moment)
    async with world.running(one, max_workers=2), world.running(other, max_workers=2):
        for number in range(40):
            await world.request(f"g{number}")
        await eventually(lambda: len(one.done) + len(other.done) == 40)
        await eventually(world.settled)
    assert sorted(one.begun + other.begun) == sorted(f"g{number}" for number in range(40))
    assert one.done
    assert other.done


@pytest.mark.parametrize("durable", [DURABLE, RETRY_DURABLE])
async def test_a_deleted_consumer_is_made_again(world: RunnerWorld, durable: str) -> None:
    work = Work()
    async with world.running(work):
        await world.request("g1")
        await eventually(lambda: work.done == ["g1"])
        stream = world.stream if durable == DURABLE else world.dead_letters.retry_stream
        jetstream = jetstream_of(world.connection)
        await jetstream.delete_consumer(stream, durable)

        async def is_back() -> bool:
            return durable in {info.name for info in await jetstream.consumers_info(stream)}

        await eventually(is_back)
        await world.request("g2")
        await eventually(lambda: "g2" in work.done)


async def test_on_a_shorter_log_work_begins_before_where_it_was_on_the_lost_one(
    world: RunnerWorld,
) -> None:
    released = asyncio.Event()

    async def holds(generation_id: str) -> None:
        if generation_id == "held":
            await released.wait()

    work = Work(holds)
    async with world.running(work, max_workers=1) as (runner, _):
        for generation_id in ("lost-1", "lost-2", "held", "waits"):
            await world.request(generation_id)
        # It has looked since the first ones were done: one is held, and one waits for it.
        await eventually(lambda: work.begun[-1:] == ["held"] and runner.health.waiting == 1)
        await jetstream_of(world.connection).delete_stream(world.stream)
        await ensure_stream(world.connection, StreamDeclaration(world.stream, world.subjects))
        released.set()
        await world.request("new")
        await eventually(lambda: "new" in work.done)


async def test_an_event_that_cannot_be_read_is_settled_and_others_flow(
    world: RunnerWorld,
) -> None:
    work = Work()
    async with world.running(work):
        subject = world.subjects.generation("bad")
        await jetstream_of(world.connection).publish(subject, b"no event")
        await world.request("g1")
        await eventually(lambda: work.done == ["g1"])
        await eventually(world.settled)


async def test_nats_killed_during_a_run_interrupts_nothing(
    own_world: RunnerWorld, own_nats: OwnNats
) -> None:
    over = asyncio.Event()

    async def until_told(generation_id: str) -> None:
        if generation_id == "g1":
            await over.wait()

    work = Work(until_told)
    async with own_world.running(work) as (runner, _):
        await own_world.request("g1")
        await eventually(lambda: work.begun == ["g1"])
        await asyncio.to_thread(own_nats.server.kill)
        await eventually(lambda: runner.health.problem is not None)
        await asyncio.to_thread(own_nats.server.start)
        await eventually(lambda: own_world.connection.is_connected)
        await own_world.request("g2")
        await eventually(lambda: "g2" in work.done)
        over.set()
        await eventually(lambda: "g1" in work.done)
        await eventually(own_world.settled)
        assert runner.health.problem is None
