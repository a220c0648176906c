"""Settled generations leave the stream, and nobody who reads the log notices."""

from __future__ import annotations

from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from shared.archive.archived_log import ArchivedLog
from shared.archive.departing import Departed
from shared.archive.errors import ArchiveDamaged, ArchiveForked
from shared.archive.restoring import restore
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
from tests.archives import AT, Archived, BucketAway, positions_of
from tests.generation_events import FAILED, REQUESTED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from shared.contracts.envelope import Envelope
    from shared.contracts.events import AnyEvent
    from shared.event_log.port import Added, EventLog


def sealed(event: AnyEvent, generation_id: str, *, at: datetime = AT) -> Envelope:
    return seal(event, generation_id=generation_id, at=at, context=Context(source="tests"))


async def happened(
    archived: Archived, event: AnyEvent, generation_id: str, *, at: datetime = AT
) -> int:
    envelopes = [sealed(event, generation_id, at=at)]
    return (
        await archived.log.append(event.family, generation_id, envelopes, expected=None)
    ).position


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
    archived: Archived,
) -> None:
    await archived.fill(1, 50)
    before = [
        (record.position, record.subject, record.data) for record in await archived.in_stream()
    ]
    await archived.catch_up()
    cut = await archived.trim()
    assert "the archive ends at position 50" in (cut.stays or "")
    assert await archived.log.first_position() == 50
    assert (await archived.log.load("generation", "g7")).events == ()

    history = await archived.whole_log.load("generation", "g7")
    assert [event.position for event in history.events] == [7]
    assert history.version == NOTHING_YET
    async with aclosing(archived.whole_log.read(after=0, until=50)) as source:
        found = [(r.position, r.subject, r.data) async for batch in source for r in batch]
    assert found == before


async def test_a_generation_that_has_not_ended_keeps_all_that_follows_its_first_event(
    archived: Archived,
) -> None:
    await archived.fill(1, 10)
    assert await happened(archived, REQUESTED, "runs") == 11
    await archived.fill(12, 30)
    await archived.catch_up()
    cut = await archived.trim()
    assert "generation runs begins there: it has not ended" in (cut.stays or "")
    assert await archived.log.first_position() == 11
    await happened(archived, GenerationCancelled(), "runs")
    await archived.fill(32, 33)
    await archived.catch_up()
    await archived.trim()
    assert await archived.log.first_position() == 33
    assert await positions_of(archived.whole_log, "generation", "runs") == [11, 31]


async def test_a_generation_stays_until_it_is_settled_for_long_enough(archived: Archived) -> None:
    await archived.fill(1, 5)
    await happened(archived, REQUESTED, "young")
    await happened(archived, GenerationCancelled(), "young", at=datetime.now(UTC))
    await archived.fill(8, 9)
    await archived.catch_up()
    cut = await archived.trim(after=timedelta(hours=1))
    assert "generation young begins there: it is settled since" in (cut.stays or "")
    assert await archived.log.first_position() == 6


async def test_what_is_not_archived_stays(archived: Archived) -> None:
    await archived.fill(1, 5)
    assert "nothing is archived yet" in ((await archived.trim()).stays or "")
    await archived.catch_up()
    await archived.fill(6, 20)
    await archived.trim()
    assert await archived.log.first_position() == 5


async def test_what_a_consumer_has_not_acknowledged_stays(archived: Archived) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    config = {"durable_name": "another-service", "ack_policy": "explicit"}
    await ask(
        archived.connection,
        f"$JS.API.CONSUMER.DURABLE.CREATE.{archived.stream}.another-service",
        {"stream_name": archived.stream, "config": config},
        timeout_s=5,
    )
    cut = await archived.trim()
    assert "consumer another-service has acknowledged nothing behind" in (cut.stays or "")
    assert await archived.log.first_position() == 1
    subscription = await jetstream_of(archived.connection).pull_subscribe_bind(
        "another-service", archived.stream
    )
    for message in await subscription.fetch(12, timeout=5):
        await message.ack_sync(timeout=5)
    await archived.trim()
    assert await archived.log.first_position() == 13


async def test_a_log_that_is_not_the_archived_one_is_left_alone(archived: Archived) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    last = (await archived.in_stream())[-1]
    await archived.delete_stream()
    await archived.declare()
    await archived.fill(1, 19, text="another history")
    # The last event is the same one, by which the two are otherwise known to belong together.
    await archived.connection.request(last.subject, last.data, headers=_headers(last.headers))
    with pytest.raises(ArchiveForked, match="from position 1 on"):
        await archived.trim()
    assert await archived.log.first_position() == 1


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode().split("\r\n")[:-1]
    return dict(line.split(": ", 1) for line in lines)


async def test_what_the_archive_has_damaged_stays_in_the_log(archived: Archived) -> None:
    await archived.fill(1, 20)
    segment = (await archived.catch_up())[0].key
    await archived.bucket.delete(segment)
    with pytest.raises(ArchiveDamaged, match=r"missing .*; nothing leaves .* velro archive verify"):
        await archived.trim()
    assert await archived.log.first_position() == 1


async def test_a_trimming_that_dies_before_the_events_leave_does_no_harm(
    archived: Archived,
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    departing = {f"g{number}": Departed(generation=(number,)) for number in range(1, 20)}
    await archived.index.add(departing, through=19)
    assert await positions_of(archived.whole_log, "generation", "g7") == [7]
    assert await read(archived.whole_log, until=20) == list(range(1, 21))
    await archived.trim()
    assert await archived.log.first_position() == 20
    assert await positions_of(archived.whole_log, "generation", "g7") == [7]


async def test_what_happens_after_the_trimming_joins_the_history(archived: Archived) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await archived.trim()
    log = archived.whole_log
    history = await log.load("generation", "g7")
    late = sealed(FAILED, "g7")
    done = await log.append("generation", "g7", [late], expected=history.version)
    assert done.position == 21
    history = await log.load("generation", "g7")
    assert [event.position for event in history.events] == [7, 21]
    assert history.version == 21
    # And leaves in its turn: the index then knows of both.
    await archived.fill(22, 23)
    await archived.catch_up()
    await archived.trim()
    assert await archived.log.first_position() == 23
    assert await positions_of(archived.whole_log, "generation", "g7") == [7, 21]


async def test_both_aggregates_of_a_generation_are_found_again(archived: Archived) -> None:
    await archived.fill(1, 3)
    lost = ObjectLost(
        index=0, object_key="k", loss=1, reason=ReasonCode.CHECKSUM_MISMATCH, detail=""
    )
    await happened(archived, lost, "g2")
    await archived.fill(5, 9)
    await archived.catch_up()
    await archived.trim()
    assert await archived.log.first_position() == 9
    assert await positions_of(archived.whole_log, "generation", "g2") == [2]
    assert await positions_of(archived.whole_log, "storage", "g2") == [4]
    assert (await archived.whole_log.load("storage", "g2", until=3)).events == ()


async def test_an_import_repeated_after_the_trimming_writes_nothing_twice(
    archived: Archived,
) -> None:
    def addition(name: str) -> Addition:
        # The ids are those of the first time.
        envelope = sealed(GenerationCancelled(reason=name), name).model_copy(
            update={"id": f"import-{name}"}
        )
        return Addition("generation", name, (envelope,))

    first = [addition(f"row{number}") for number in range(30)]
    assert sum(each.events_written for each in await added(archived.whole_log, first)) == 30
    await archived.fill(31, 40)
    await archived.catch_up()
    await archived.trim()
    assert await archived.log.first_position() == 40
    again = await added(archived.whole_log, [*first, addition("row30")])
    assert sum(each.additions for each in again) == 31
    assert sum(each.events_there_before for each in again) == 30
    assert sum(each.events_written for each in again) == 1
    other = Addition("generation", "row3", (sealed(GenerationCancelled(reason="other"), "row3"),))
    (refused,) = await added(archived.whole_log, [other])
    assert refused.conflicts == (other,)


async def test_a_reader_that_is_overtaken_by_the_trimming_goes_on_in_the_archive(
    archived: Archived,
) -> None:
    await archived.fill(1, 60)
    await archived.catch_up()
    # Small steps, so that the server has not sent everything when the events leave.
    slow = JetStreamLog(
        archived.connection,
        Subjects(archived.stream.lower()),
        stream=archived.stream,
        read_limits=ReadLimits(batch=5, silence_s=1.5, heartbeat_s=0.5, pull_s=5.0),
    )
    log = ArchivedLog(slow, archived.archive, trimmed=archived.index, from_archive=False)
    positions: list[int] = []
    async with aclosing(log.read(after=0, until=60)) as source:
        async for batch in source:
            positions += [record.position for record in batch]
            if len(positions) == 5:
                await archived.trim()
                assert await archived.log.first_position() == 60
    assert positions == list(range(1, 61))


async def test_what_left_the_stream_in_another_way_is_missed(archived: Archived) -> None:
    await archived.fill(1, 30)
    await archived.catch_up()
    await TrimmableStream(archived.connection, archived.stream).purge_until(10)
    with pytest.raises(LogMismatch, match="begins at position 11"):
        await read(archived.whole_log, until=30)
    assert await read(archived.archived_log, until=30) == list(range(1, 31))


async def test_an_archive_that_lost_what_was_trimmed_is_said_to_have(archived: Archived) -> None:
    await archived.fill(1, 30)
    await archived.catch_up()
    await archived.trim()
    keys = [key async for key in archived.bucket.keys(f"{archived.archive.root}/manifest/")]
    for key in keys:
        await archived.bucket.delete(key)
    with pytest.raises(ArchiveForked, match=r"position 1 was trimmed .* the archive ends at 0"):
        await read(archived.whole_log, until=30)


async def test_new_generations_need_no_bucket_and_old_ones_say_that_they_do(
    archived: Archived,
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await archived.trim()
    log = ArchivedLog(archived.log, BucketAway(), trimmed=archived.index, from_archive=False)
    assert (await log.load("generation", "new")).events == ()
    assert await positions_of(log, "generation", "g20") == [20]
    assert await read(log, after=19, until=20) == [20]
    with pytest.raises(LogUnavailable, match="in the archive alone"):
        await log.load("generation", "g7")


async def test_a_trimmed_log_that_is_lost_comes_back_whole(archived: Archived) -> None:
    await archived.fill(1, 40)
    await archived.catch_up()
    await archived.trim()
    await archived.delete_stream()
    await archived.declare()
    async with aclosing(
        restore(archived.connection, archived.stream, archived.archive, after=0)
    ) as reached:
        assert [position async for position in reached][-1] == 40
    assert await archived.log.first_position() == 1
    assert await positions_of(archived.whole_log, "generation", "g7") == [7]
    assert await read(archived.whole_log, until=40) == list(range(1, 41))
    await archived.trim()
    assert await archived.log.first_position() == 40
