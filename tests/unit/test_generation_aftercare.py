"""What the provider is asked once a generation has completed, and what the log says of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from generation_svc.application.aftercare import Aftercare, begins_aftercare
from generation_svc.application.provider import (
    Failed,
    ProviderOutput,
    ProviderUnavailable,
    ResultGone,
    Succeeded,
)
from shared.contracts.envelope import Context, seal
from shared.contracts.generation_events import LinksNotRenewed, LinksRenewed, SourcesDeleted
from shared.contracts.storage_events import MigrationCompleted, RefetchRequested
from tests.generation_events import NOON, completed, media_lost, media_stored
from tests.generation_world import World

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.events import AnyEvent

ANSWER_BY = NOON + timedelta(minutes=15)
OLD = "https://media.example/0.png"
NEW = "https://media.example/new.png"


async def ended(world: World) -> World:
    """A generation that ran, whose one output is where the provider has it."""
    world.copier.script[0] = RuntimeError("the bucket is away")
    await world.requested()
    task = asyncio.create_task(world.runner()(world.generation_id))
    await world.time.until_done(task)
    await task
    world.provider.polls.clear()
    return world


async def say(world: World, *events: AnyEvent) -> None:
    sealed = [
        seal(event, generation_id=world.generation_id, at=NOON, context=Context(source="storage"))
        for event in events
    ]
    for envelope in sealed:
        await world.log.append("storage", world.generation_id, [envelope], expected=None)


async def cared(world: World, *, deleting: Sequence[str] = ()) -> list[AnyEvent]:
    """What the generation service says after its end."""
    aftercare = Aftercare(
        world.decider, world.log, {"scripted": world.provider}, deleting, world.time.pause
    )
    task = asyncio.create_task(aftercare(world.generation_id))
    await world.time.until_done(task)
    await task
    history = await world.log.load("generation", world.generation_id)
    after = (LinksRenewed, LinksNotRenewed, SourcesDeleted)
    return [
        recorded.envelope.data
        for recorded in history.events
        if isinstance(recorded.envelope.data, after)
    ]


def asked(request: int = 1) -> RefetchRequested:
    return RefetchRequested(request=request, indexes=(0,), answer_by=ANSWER_BY)


async def test_a_new_link_for_the_same_request_is_told() -> None:
    world = await ended(World())
    await say(world, asked())
    dies_at = NOON + timedelta(hours=9)
    world.provider.result = Succeeded((ProviderOutput(NEW, expires_at=dies_at),))
    (renewed,) = await cared(world)
    assert isinstance(renewed, LinksRenewed)
    (link,) = renewed.links
    assert (renewed.request, link.index, link.source_url) == (1, 0, NEW)
    assert link.expires_at == dies_at
    history = await world.log.load("generation", world.generation_id)
    assert history.events[-1].envelope.causationid == (
        f"{world.generation_id}:{RefetchRequested.type}:1"
    )


async def test_a_link_whose_death_is_not_told_is_taken_to_die_soon() -> None:
    world = await ended(World())
    await say(world, asked())
    world.provider.result = Succeeded((ProviderOutput(NEW),))
    (renewed,) = await cared(world)
    assert isinstance(renewed, LinksRenewed)
    assert renewed.links[0].expires_at == world.time.now + timedelta(minutes=10)


async def test_a_question_that_is_delivered_twice_is_answered_once() -> None:
    world = await ended(World())
    await say(world, asked())
    world.provider.result = Succeeded((ProviderOutput(NEW),))
    await cared(world)
    assert len(await cared(world)) == 1


async def test_the_same_dead_link_again_is_no_new_one() -> None:
    world = await ended(World())
    await say(world, asked())
    (refused,) = await cared(world)
    assert isinstance(refused, LinksNotRenewed)
    assert refused.detail == "the provider gives the same links again"


async def test_a_renewed_link_that_died_too_is_no_new_one() -> None:
    world = await ended(World())
    await say(world, asked(1))
    world.provider.result = Succeeded((ProviderOutput(NEW),))
    await cared(world)
    await say(world, asked(2))
    _, second = await cared(world)
    assert isinstance(second, LinksNotRenewed)
    assert second.request == 2


@pytest.mark.parametrize("error", [ProviderUnavailable("no answer"), ProviderUnavailable("again")])
async def test_a_provider_that_is_away_is_asked_again(error: Exception) -> None:
    world = await ended(World())
    await say(world, asked())
    world.provider.polls = [error, error, None]
    world.provider.result = Succeeded((ProviderOutput(NEW),))
    (renewed,) = await cared(world)
    assert isinstance(renewed, LinksRenewed)


async def test_a_provider_that_stays_away_is_told_when_the_time_is_over() -> None:
    world = await ended(World())
    await say(world, asked())
    world.provider.polls = [ProviderUnavailable("no answer")] * 1000
    (refused,) = await cared(world)
    assert isinstance(refused, LinksNotRenewed)
    assert "no links until the time was over: no answer" in refused.detail
    assert world.time.now >= ANSWER_BY
    assert len(world.provider.polls) > 950  # slower and slower, not at full speed


async def test_a_result_that_is_gone_or_failed_is_told_at_once() -> None:
    world = await ended(World())
    await say(world, asked())
    world.provider.polls = [ResultGone("forgotten")]
    (refused,) = await cared(world)
    assert isinstance(refused, LinksNotRenewed)
    assert refused.detail == "forgotten"

    await say(world, asked(2))
    world.provider.result = Failed("boom", "it broke", retryable=False, billed=None)
    _, second = await cared(world)
    assert isinstance(second, LinksNotRenewed)
    assert second.detail == "boom: it broke"


async def test_media_of_another_service_has_no_links_to_be_renewed() -> None:
    world = World()
    world.generation_id = "g"
    event = completed("link")
    envelope = seal(event, generation_id="g", at=NOON, context=Context(source="other"))
    await world.log.append("generation", "g", [envelope], expected=None)
    await say(world, asked())
    (refused,) = await cared(world)
    assert isinstance(refused, LinksNotRenewed)
    assert "not set up here" in refused.detail


async def test_sources_are_deleted_once_and_only_when_all_is_stored() -> None:
    world = await ended(World())
    assert await cared(world, deleting=["scripted"]) == []
    assert world.provider.deleted == []
    await say(world, media_stored(0), MigrationCompleted(file_count=1, total_size_bytes=10))
    assert await cared(world, deleting=["scripted"]) == [SourcesDeleted()]
    assert await cared(world, deleting=["scripted"]) == [SourcesDeleted()]
    assert world.provider.deleted == ["r1"]


async def test_sources_are_kept_unless_settings_say_otherwise_and_where_something_is_lost() -> None:
    world = await ended(World())
    await say(world, media_lost(0))
    assert await cared(world, deleting=["scripted"]) == []
    await say(world, media_stored(0))
    assert await cared(world) == []
    assert world.provider.deleted == []


def test_what_begins_aftercare() -> None:
    assert begins_aftercare(asked(), deleting=False)
    done = MigrationCompleted(file_count=1, total_size_bytes=1)
    assert [begins_aftercare(done, deleting=each) for each in (True, False)] == [True, False]
    assert begins_aftercare(completed("bucket"), deleting=True)
    assert not begins_aftercare(completed("bucket", "link"), deleting=True)
