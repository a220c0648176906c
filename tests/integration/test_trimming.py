"""Settled generations leave the stream, and nobody who reads the log notices."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shared.archive.archived_log import ArchivedLog
from shared.archive.departing import Departed
from shared.archive.errors import ArchiveDamaged, ArchiveForked
from shared.archive.restoring import compare, restore
from shared.archive.trimmed import TrimmingElsewhere
from shared.contracts.envelope import Context, seal
from shared.contracts.generation_events import GenerationCancelled
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import ObjectLost
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_reader import ReadLimits
from shared.event_log.jetstream_trim import TrimmableStream
from shared.event_log.port import NOTHING_YET, Addition, LogMismatch, LogUnavailable
from shared.messaging.jetstream import jetstream_of
from tests.archives import AT, Archived, BucketAway, open_archived
from tests.generation_events import FAILED, REQUESTED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from shared.contracts.envelope import Envelope
    from shared.contracts.events import AnyEvent
    from shared.contracts.facts import Family
    from shared.event_log.port import Added, EventLog, RawRecord, WholeRecord
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
async def world(
    nats_url: str, subject_root: str, stream: str, bucket: S3Address
) -> AsyncGenerator[Archived]:
    async with open_archived(
        nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=bucket
    ) as opened:
        yield opened


def sealed(event: AnyEvent, generation_id: str, *, at: datetime = AT) -> Envelope:
    return seal(event, generation_id=generation_id, at=at, context=Context(source="tests"))


async def happened(
    world: Archived, event: AnyEvent, generation_id: str, *, at: datetime = AT
) -> int:
    envelopes = [sealed(event, generation_id, at=at)]
    return (await world.log.append(event.family, generation_id, envelopes, expected=None)).position


async def positions_of(log: EventLog, family: Family, generation_id: str) -> list[int]:
    return [event.position for event in (await log.load(family, generation_id)).events]


async def read(log: EventLog, *, until: int, after: int = 0) -> list[int]:
    async with aclosing(log.read(after=after, until=until)) as source:
        return [record.position async for batch in source for record in batch]


async def added(log: EventLog, additions: Sequence[Addition]) -> list[Added]:
    async def given() -> AsyncGenerator[Addition, None]:
        for addition in additions:
            yield addition

    async with aclosing(log.append_all(given())) as source:
        return [each async for each in source]


async def test_what_is_settled_and_archived_leaves_the_stream_and_is_read_as_before(
    world: Archived,
) -> None:
    await world.fill(1, 50)
    before = [(record.position, record.subject, record.data) for record in await world.in_stream()]
    await world.catch_up()
    cut = await world.trim()
    assert "the archive ends at position 50" in (cut.stays or "")
    assert await world.log.first_position() == 50
    assert (await world.log.load("generation", "g7")).events == ()

    history = await world.whole_log.load("generation", "g7")
    assert [event.position for event in history.events] == [7]
    assert history.version == NOTHING_YET
    async with aclosing(world.whole_log.read(after=0, until=50)) as source:
        found = [(r.position, r.subject, r.data) async for batch in source for r in batch]
    assert found == before


async def test_a_generation_that_has_not_ended_keeps_all_that_follows_its_first_event(
    world: Archived,
) -> None:
    await world.fill(1, 10)
    assert await happened(world, REQUESTED, "runs") == 11
    await world.fill(12, 30)
    await world.catch_up()
    cut = await world.trim()
    assert "generation runs begins there: it has not ended" in (cut.stays or "")
    assert await world.log.first_position() == 11
    await happened(world, GenerationCancelled(), "runs")
    await world.fill(32, 33)
    await world.catch_up()
    await world.trim()
    assert await world.log.first_position() == 33
    assert await positions_of(world.whole_log, "generation", "runs") == [11, 31]


async def test_a_generation_stays_until_it_is_settled_for_long_enough(world: Archived) -> None:
    await world.fill(1, 5)
    await happened(world, REQUESTED, "young")
    await happened(world, GenerationCancelled(), "young", at=datetime.now(UTC))
    await world.fill(8, 9)
    await world.catch_up()
    cut = await world.trim(after=timedelta(hours=1))
    assert "generation young begins there: it is settled since" in (cut.stays or "")
    assert await world.log.first_position() == 6


async def test_what_is_not_archived_stays(world: Archived) -> None:
    await world.fill(1, 5)
    assert "nothing is archived yet" in ((await world.trim()).stays or "")
    await world.catch_up()
    await world.fill(6, 20)
    await world.trim()
    assert await world.log.first_position() == 5


async def test_what_a_consumer_has_not_acknowledged_stays(world: Archived) -> None:
    await world.fill(1, 20)
    await world.catch_up()
    config = {"durable_name": "another-service", "ack_policy": "explicit"}
    await ask(
        world.connection,
        f"$JS.API.CONSUMER.DURABLE.CREATE.{world.stream}.another-service",
        {"stream_name": world.stream, "config": config},
        timeout_s=5,
    )
    cut = await world.trim()
    assert "consumer another-service has acknowledged nothing behind" in (cut.stays or "")
    assert await world.log.first_position() == 1
    subscription = await jetstream_of(world.connection).pull_subscribe_bind(
        "another-service", world.stream
    )
    for message in await subscription.fetch(12, timeout=5):
        await message.ack_sync(timeout=5)
    await world.trim()
    assert await world.log.first_position() == 13


async def test_a_log_that_is_not_the_archived_one_is_left_alone(world: Archived) -> None:
    await world.fill(1, 20)
    await world.catch_up()
    last = (await world.in_stream())[-1]
    await world.delete_stream()
    await world.declare()
    await world.fill(1, 19, text="another history")
    # The last event is the same one, by which the two are otherwise known to belong together.
    await world.connection.request(last.subject, last.data, headers=_headers(last.headers))
    with pytest.raises(ArchiveForked, match="from position 1 on"):
        await world.trim()
    assert await world.log.first_position() == 1


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode().split("\r\n")[:-1]
    return dict(line.split(": ", 1) for line in lines)


async def test_what_the_archive_has_damaged_stays_in_the_log(world: Archived) -> None:
    await world.fill(1, 20)
    segment = (await world.catch_up())[0].key
    await world.bucket.delete(segment)
    with pytest.raises(ArchiveDamaged, match=r"missing .*; nothing leaves .* velro archive verify"):
        await world.trim()
    assert await world.log.first_position() == 1


async def test_a_trimming_that_dies_before_the_events_leave_does_no_harm(world: Archived) -> None:
    await world.fill(1, 20)
    await world.catch_up()
    departing = {f"g{number}": Departed(generation=(number,)) for number in range(1, 20)}
    await world.index.add(departing, through=19)
    assert await positions_of(world.whole_log, "generation", "g7") == [7]
    assert await read(world.whole_log, until=20) == list(range(1, 21))
    await world.trim()
    assert await world.log.first_position() == 20
    assert await positions_of(world.whole_log, "generation", "g7") == [7]


async def test_two_that_trim_at_once_take_nothing_away_that_one_did_not_write_down(
    world: Archived,
) -> None:
    await world.fill(1, 40)
    await world.catch_up()
    results = await asyncio.gather(*(world.trim() for _ in range(4)), return_exceptions=True)
    assert all(
        not isinstance(result, BaseException) or isinstance(result, TrimmingElsewhere)
        for result in results
    )
    await world.trim()
    assert await world.log.first_position() == 40
    for number in range(1, 41):
        assert await positions_of(world.whole_log, "generation", f"g{number}") == [number]


class TrimmedMeanwhile(JetStreamLog):
    """A log whose beginning leaves after one has asked where it begins, and before it is read."""

    trim: Callable[[], Awaitable[object]]

    async def read(
        self, *, after: int, until: int | None = None
    ) -> AsyncGenerator[Sequence[RawRecord], None]:
        await self.trim()
        async with aclosing(super().read(after=after, until=until)) as source:
            async for records in source:
                yield records

    async def read_whole(
        self, *, after: int, until: int
    ) -> AsyncGenerator[Sequence[WholeRecord], None]:
        await self.trim()
        async with aclosing(super().read_whole(after=after, until=until)) as source:
            async for records in source:
                yield records


def trimmed_meanwhile(world: Archived) -> TrimmedMeanwhile:
    log = TrimmedMeanwhile(world.connection, Subjects(world.stream.lower()), stream=world.stream)
    log.trim = world.trim
    return log


async def test_one_looks_on_behind_what_another_one_trimmed_meanwhile(world: Archived) -> None:
    await world.fill(1, 40)
    await world.catch_up()
    trimmer = replace(world.trimmer(), log=trimmed_meanwhile(world))
    async with aclosing(trimmer.cuts()) as cuts:
        assert [(cut.first, cut.events) async for cut in cuts] == [(40, 0)]


async def test_comparing_passes_over_what_is_trimmed_meanwhile(world: Archived) -> None:
    await world.fill(1, 40)
    await world.catch_up()
    async with aclosing(compare(trimmed_meanwhile(world), world.archive)) as compared:
        assert [each.position async for each in compared] == [40]


async def _refuses() -> None:
    raise LogMismatch("a hole")


async def test_nothing_else_that_is_missing_is_passed_over(world: Archived) -> None:
    await world.fill(1, 20)
    await world.catch_up()
    log = trimmed_meanwhile(world)
    log.trim = _refuses
    with pytest.raises(LogMismatch, match="a hole"):
        async with aclosing(compare(log, world.archive)) as compared:
            assert [each async for each in compared] == []
    with pytest.raises(LogMismatch, match="a hole"):
        async with aclosing(replace(world.trimmer(), log=log).cuts()) as cuts:
            assert [cut async for cut in cuts] == []


async def test_what_happens_after_the_trimming_joins_the_history(world: Archived) -> None:
    await world.fill(1, 20)
    await world.catch_up()
    await world.trim()
    log = world.whole_log
    history = await log.load("generation", "g7")
    late = sealed(FAILED, "g7")
    done = await log.append("generation", "g7", [late], expected=history.version)
    assert done.position == 21
    history = await log.load("generation", "g7")
    assert [event.position for event in history.events] == [7, 21]
    assert history.version == 21
    # And leaves in its turn: the index then knows of both.
    await world.fill(22, 23)
    await world.catch_up()
    await world.trim()
    assert await world.log.first_position() == 23
    assert await positions_of(world.whole_log, "generation", "g7") == [7, 21]


async def test_both_aggregates_of_a_generation_are_found_again(world: Archived) -> None:
    await world.fill(1, 3)
    lost = ObjectLost(
        index=0, object_key="k", loss=1, reason=ReasonCode.CHECKSUM_MISMATCH, detail=""
    )
    await happened(world, lost, "g2")
    await world.fill(5, 9)
    await world.catch_up()
    await world.trim()
    assert await world.log.first_position() == 9
    assert await positions_of(world.whole_log, "generation", "g2") == [2]
    assert await positions_of(world.whole_log, "storage", "g2") == [4]
    assert (await world.whole_log.load("storage", "g2", until=3)).events == ()


async def test_an_import_repeated_after_the_trimming_writes_nothing_twice(world: Archived) -> None:
    def addition(name: str) -> Addition:
        # The ids are those of the first time.
        envelope = sealed(GenerationCancelled(reason=name), name).model_copy(
            update={"id": f"import-{name}"}
        )
        return Addition("generation", name, (envelope,))

    first = [addition(f"row{number}") for number in range(30)]
    assert sum(each.events_written for each in await added(world.whole_log, first)) == 30
    await world.fill(31, 40)
    await world.catch_up()
    await world.trim()
    assert await world.log.first_position() == 40
    again = await added(world.whole_log, [*first, addition("row30")])
    assert sum(each.additions for each in again) == 31
    assert sum(each.events_there_before for each in again) == 30
    assert sum(each.events_written for each in again) == 1
    other = Addition("generation", "row3", (sealed(GenerationCancelled(reason="other"), "row3"),))
    (refused,) = await added(world.whole_log, [other])
    assert refused.conflicts == (other,)


async def test_a_reader_that_is_overtaken_by_the_trimming_goes_on_in_the_archive(
    world: Archived,
) -> None:
    await world.fill(1, 60)
    await world.catch_up()
    # Small steps, so that the server has not sent everything when the events leave.
    slow = JetStreamLog(
        world.connection,
        Subjects(world.stream.lower()),
        stream=world.stream,
        read_limits=ReadLimits(batch=5, silence_s=1.5, heartbeat_s=0.5, pull_s=5.0),
    )
    log = ArchivedLog(slow, world.archive, trimmed=world.index, from_archive=False)
    positions: list[int] = []
    async with aclosing(log.read(after=0, until=60)) as source:
        async for batch in source:
            positions += [record.position for record in batch]
            if len(positions) == 5:
                await world.trim()
                assert await world.log.first_position() == 60
    assert positions == list(range(1, 61))


async def test_what_left_the_stream_in_another_way_is_missed(world: Archived) -> None:
    await world.fill(1, 30)
    await world.catch_up()
    await TrimmableStream(world.connection, world.stream).purge_until(10)
    with pytest.raises(LogMismatch, match="begins at position 11"):
        await read(world.whole_log, until=30)
    assert await read(world.archived_log, until=30) == list(range(1, 31))


async def test_an_archive_that_lost_what_was_trimmed_is_said_to_have(world: Archived) -> None:
    await world.fill(1, 30)
    await world.catch_up()
    await world.trim()
    keys = [key async for key in world.bucket.keys(f"{world.archive.root}/manifest/")]
    for key in keys:
        await world.bucket.delete(key)
    with pytest.raises(ArchiveForked, match=r"position 1 was trimmed .* the archive ends at 0"):
        await read(world.whole_log, until=30)


async def test_new_generations_need_no_bucket_and_old_ones_say_that_they_do(
    world: Archived,
) -> None:
    await world.fill(1, 20)
    await world.catch_up()
    await world.trim()
    log = ArchivedLog(world.log, BucketAway(), trimmed=world.index, from_archive=False)
    assert (await log.load("generation", "new")).events == ()
    assert await positions_of(log, "generation", "g20") == [20]
    assert await read(log, after=19, until=20) == [20]
    with pytest.raises(LogUnavailable, match="in the archive alone"):
        await log.load("generation", "g7")


async def test_a_trimmed_log_that_is_lost_comes_back_whole(world: Archived) -> None:
    await world.fill(1, 40)
    await world.catch_up()
    await world.trim()
    await world.delete_stream()
    await world.declare()
    async with aclosing(restore(world.connection, world.stream, world.archive, after=0)) as reached:
        assert [position async for position in reached][-1] == 40
    assert await world.log.first_position() == 1
    assert await positions_of(world.whole_log, "generation", "g7") == [7]
    assert await read(world.whole_log, until=40) == list(range(1, 41))
    await world.trim()
    assert await world.log.first_position() == 40
