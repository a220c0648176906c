"""What every log does, the one on JetStream and the one in memory alike."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shared.contracts.codec import Codec
from shared.contracts.envelope import Context, Envelope, seal
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationRequested,
    SubmissionStarted,
)
from shared.contracts.storage_events import MigrationCompleted
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.jetstream_tail import ReadLimits
from shared.event_log.memory import MemoryLog
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    NOTHING_YET,
    Added,
    Addition,
    Appended,
    AppendTooLong,
    CorruptRecord,
    EventLog,
    EventTooLarge,
    ExpectedVersion,
    LogMismatch,
    RawRecord,
    VersionConflict,
)
from shared.messaging.connection import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence

    from shared.contracts.events import AnyEvent
    from shared.contracts.facts import Family

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
SMALL_BATCH = 10


@dataclass
class Subject:
    """A log under test, and how another writer gets bytes of its own into it."""

    log: EventLog
    put: Callable[[str, bytes], Awaitable[None]]
    root: str = field(default="velro")


@pytest.fixture(params=["jetstream", "memory"])
async def subject(request: pytest.FixtureRequest) -> AsyncIterator[Subject]:
    if request.param == "memory":
        memory = MemoryLog(batch=SMALL_BATCH)

        async def put_in_memory(name: str, data: bytes) -> None:
            memory.put(name, data)

        yield Subject(memory, put_in_memory)
        return
    root: str = request.getfixturevalue("subject_root")
    url: str = request.getfixturevalue("nats_url")
    async with connected(url, name="contract-tests") as connection:
        await ensure_stream(connection, StreamDeclaration(name=root, subjects=Subjects(root)))

        async def put(name: str, data: bytes) -> None:
            await connection.request(name, data, timeout=5)

        yield Subject(
            JetStreamLog(
                connection,
                Subjects(root),
                stream=root,
                read_limits=ReadLimits(batch=SMALL_BATCH),
            ),
            put,
            root,
        )
        await ask(connection, f"$JS.API.STREAM.DELETE.{root}", None, timeout_s=5)


@pytest.fixture
def log(subject: Subject) -> EventLog:
    return subject.log


def event(generation_id: str, fact: AnyEvent) -> Envelope:
    return seal(fact, generation_id=generation_id, at=AT, context=Context(source="test"))


def started(generation_id: str, *attempts: int) -> list[Envelope]:
    return [event(generation_id, SubmissionStarted(attempt=attempt)) for attempt in attempts]


async def append(
    log: EventLog, generation_id: str, *attempts: int, expected: int | None = None
) -> Appended:
    return await log.append(
        "generation",
        generation_id,
        started(generation_id, *attempts),
        expected=None if expected is None else ExpectedVersion(expected),
    )


async def attempts_in(log: EventLog, generation_id: str) -> list[int]:
    history = await log.load("generation", generation_id)
    facts = [recorded.envelope.data for recorded in history.events]
    return [fact.attempt for fact in facts if isinstance(fact, SubmissionStarted)]


async def read(log: EventLog, *, after: int, until: int | None = None) -> list[list[RawRecord]]:
    async with aclosing(log.read(after=after, until=until)) as batches:
        return [list(batch) async for batch in batches]


class TestAppending:
    async def test_an_event_is_loaded_as_it_was_appended(self, log: EventLog) -> None:
        requested = event(
            "g",
            GenerationRequested(user_id="u", provider="fal", model="m", input={"mask": None}),
        )
        appended = await log.append("generation", "g", [requested], expected=NOTHING_YET)
        history = await log.load("generation", "g")
        assert appended == Appended(1)
        assert [(r.position, r.envelope) for r in history.events] == [(1, requested)]
        assert history.version == 1

    async def test_an_aggregate_without_events_is_empty_at_version_zero(
        self, log: EventLog
    ) -> None:
        history = await log.load("generation", "nobody")
        assert (history.events, history.version) == ((), NOTHING_YET)

    async def test_positions_count_across_aggregates_and_families(self, log: EventLog) -> None:
        await append(log, "a", 1)
        await log.append(
            "storage",
            "a",
            [event("a", MigrationCompleted(file_count=1, total_size_bytes=1))],
            expected=NOTHING_YET,
        )
        assert (await append(log, "b", 1, expected=0)).position == 3
        assert (await append(log, "a", 2, expected=1)).position == 4
        assert (await log.load("generation", "a")).version == 4
        assert (await log.load("storage", "a")).version == 2
        assert await log.last_position() == 4

    async def test_several_events_stand_one_after_the_other(self, log: EventLog) -> None:
        await append(log, "other", 1)
        assert await append(log, "a", 1, 2, 3, expected=0) == Appended(4)
        history = await log.load("generation", "a")
        assert [recorded.position for recorded in history.events] == [2, 3, 4]
        assert await attempts_in(log, "a") == [1, 2, 3]

    async def test_nothing_to_append_is_a_mistake(self, log: EventLog) -> None:
        with pytest.raises(ValueError, match="nothing to append"):
            await log.append("generation", "a", [], expected=None)

    @pytest.mark.parametrize(
        ("family", "generation_id"), [("generation", "b"), ("storage", "a"), ("generation", "a.b")]
    )
    async def test_events_of_another_aggregate_are_a_mistake(
        self, log: EventLog, family: Family, generation_id: str
    ) -> None:
        async def addition() -> AsyncGenerator[Addition, None]:
            yield Addition(family, generation_id, tuple(started("a", 1)))

        with pytest.raises(ValueError, match=r"not about|does not belong"):
            await log.append(family, generation_id, started("a", 1), expected=NOTHING_YET)
        with pytest.raises(ValueError, match=r"not about|does not belong"):
            async with aclosing(log.append_all(addition())) as steps:
                await anext(steps)
        assert await log.last_position() == 0

    async def test_a_thousand_events_are_appended_at_once_and_one_more_is_refused(
        self, log: EventLog
    ) -> None:
        numbers = range(1, MAX_BATCH_EVENTS + 1)
        with pytest.raises(AppendTooLong, match="1001"):
            await append(log, "a", *numbers, MAX_BATCH_EVENTS + 1)
        assert await log.last_position() == 0
        assert (await append(log, "a", *numbers, expected=0)).position == MAX_BATCH_EVENTS
        assert await attempts_in(log, "a") == list(numbers)

    async def test_more_events_than_one_answer_holds_are_loaded(self, log: EventLog) -> None:
        await append(log, "a", *range(1, 1001))
        await append(log, "b", 1)
        await append(log, "a", *range(1001, 2001))
        assert await attempts_in(log, "a") == list(range(1, 2001))

    async def test_the_longest_id_and_ids_that_begin_alike_are_kept_apart(
        self, log: EventLog
    ) -> None:
        for generation_id in ("a", "aa", "a-a", "x" * 64):
            await append(log, generation_id, 1, expected=0)
        assert await log.last_position() == 4


class TestExpectedVersions:
    @pytest.mark.parametrize("expected", [0, 1, 3, 99])
    @pytest.mark.parametrize("attempts", [(7,), (7, 8)], ids=["one event", "a batch"])
    async def test_a_decision_on_another_version_is_a_conflict(
        self, log: EventLog, expected: int, attempts: tuple[int, ...]
    ) -> None:
        await append(log, "a", 1)
        await append(log, "a", 2)
        await append(log, "b", 1)
        with pytest.raises(VersionConflict):
            await append(log, "a", *attempts, expected=expected)
        assert await log.last_position() == 3

    @pytest.mark.parametrize("attempts", [(7,), (7, 8)], ids=["one event", "a batch"])
    async def test_without_an_expected_version_the_end_is_good_enough(
        self, log: EventLog, attempts: tuple[int, ...]
    ) -> None:
        await append(log, "a", 1)
        await append(log, "a", *attempts, expected=None)
        assert await attempts_in(log, "a") == [1, *attempts]

    async def test_of_twenty_that_race_for_one_aggregate_one_wins(self, log: EventLog) -> None:
        async def race(number: int) -> bool:
            try:
                await append(log, "a", number, expected=0)
            except VersionConflict:
                return False
            return True

        won = await asyncio.gather(*(race(number) for number in range(1, 21)))
        assert won.count(True) == 1
        assert await attempts_in(log, "a") == [won.index(True) + 1]

    async def test_of_twenty_batches_that_race_one_wins_whole(self, log: EventLog) -> None:
        async def race(number: int) -> bool:
            try:
                await append(log, "a", 2 * number, 2 * number + 1, expected=0)
            except VersionConflict:
                return False
            return True

        won = await asyncio.gather(*(race(number) for number in range(1, 21)))
        assert won.count(True) == 1
        first = 2 * (won.index(True) + 1)
        assert await attempts_in(log, "a") == [first, first + 1]

    async def test_losers_that_load_and_decide_again_all_get_in(self, log: EventLog) -> None:
        async def increment() -> None:
            for _ in range(50):
                history = await log.load("generation", "a")
                try:
                    await append(log, "a", len(history.events) + 1, expected=history.version)
                except VersionConflict:
                    continue
                return
            pytest.fail("lost fifty times")

        await asyncio.gather(*(increment() for _ in range(8)))
        # Racers that decided the same fact are one fact, so the count may be lower than eight,
        # but there is no gap and no repetition.
        attempts = await attempts_in(log, "a")
        assert attempts == list(range(1, len(attempts) + 1))


class TestRepeating:
    @pytest.mark.parametrize("attempts", [(1,), (1, 2, 3)], ids=["one event", "a batch"])
    @pytest.mark.parametrize("expected", [0, None, 99])
    async def test_an_append_that_got_through_is_a_duplicate(
        self, log: EventLog, attempts: tuple[int, ...], expected: int | None
    ) -> None:
        first = await append(log, "a", *attempts, expected=0)
        again = await append(log, "a", *attempts, expected=expected)
        assert again == Appended(first.position, duplicate=True)
        assert await log.last_position() == len(attempts)

    async def test_it_is_a_duplicate_even_when_others_have_appended_since(
        self, log: EventLog
    ) -> None:
        first = await append(log, "a", 1, 2, expected=0)
        await append(log, "a", 3, expected=2)
        assert await append(log, "a", 1, 2, expected=0) == Appended(first.position, duplicate=True)
        assert await append(log, "a", 1, expected=0) == Appended(1, duplicate=True)

    @pytest.mark.parametrize("expected", [0, 2, None])
    async def test_a_batch_of_which_a_part_is_there_is_a_conflict(
        self, log: EventLog, expected: int | None
    ) -> None:
        await append(log, "a", 1, 2, expected=0)
        with pytest.raises(VersionConflict):
            await append(log, "a", 2, 3, expected=expected)
        assert await attempts_in(log, "a") == [1, 2]

    async def test_twenty_that_append_the_same_fact_at_once_write_it_once(
        self, log: EventLog
    ) -> None:
        results = await asyncio.gather(*(append(log, "a", 1, expected=0) for _ in range(20)))
        assert [result.position for result in results] == [1] * 20
        assert [result.duplicate for result in results].count(False) == 1
        assert await log.last_position() == 1


class TestSizes:
    async def test_an_event_over_the_limit_is_refused_before_it_is_sent(
        self, log: EventLog
    ) -> None:
        small = event("a", GenerationCancelled(reason="x"))
        big = GenerationRequested(
            user_id="u", provider="p", model="m", input={"prompt": "x" * (1024 * 1024)}
        )
        with pytest.raises(EventTooLarge, match="bytes"):
            await log.append("generation", "a", [event("a", big)], expected=NOTHING_YET)
        with pytest.raises(EventTooLarge):
            await log.append("generation", "a", [small, event("a", big)], expected=NOTHING_YET)
        assert await log.last_position() == 0
        # and the log goes on as if nothing had been
        assert (await append(log, "a", 1, expected=0)).position == 1

    async def test_an_event_just_under_the_limit_is_taken(self, log: EventLog) -> None:
        big = GenerationRequested(
            user_id="u", provider="p", model="m", input={"prompt": "x" * (1024 * 1024 - 2048)}
        )
        await log.append("generation", "a", [event("a", big)], expected=NOTHING_YET)
        history = await log.load("generation", "a")
        assert history.events[0].envelope.data == big
        assert len((await read(log, after=0, until=1))[0][0].data) > 1024 * 1024 - 2048


class TestReading:
    async def test_records_come_in_order_as_bytes_in_bounded_batches(
        self, subject: Subject
    ) -> None:
        log = subject.log
        for number in range(1, 13):
            await append(log, f"g{number % 3}", 2 * number, 2 * number + 1)
        batches = await read(log, after=0, until=24)
        records = [record for batch in batches for record in batch]
        assert [record.position for record in records] == list(range(1, 25))
        assert max(len(batch) for batch in batches) <= SMALL_BATCH
        assert records[0].subject == f"{subject.root}.generation.g1"
        first = Codec().decode(records[0].data)
        assert first == started("g1", 2)[0]

    async def test_reading_begins_after_a_position_and_ends_at_one(self, log: EventLog) -> None:
        await append(log, "a", *range(1, 31))
        batches = await read(log, after=7, until=9)
        assert [record.position for batch in batches for record in batch] == [8, 9]

    @pytest.mark.parametrize("until", [0, 5])
    async def test_nothing_is_read_up_to_where_one_is(self, log: EventLog, until: int) -> None:
        await append(log, "a", *range(1, 11))
        assert await read(log, after=5, until=until) == []

    async def test_a_reader_at_the_end_gets_what_comes_later(self, log: EventLog) -> None:
        await append(log, "a", 1)
        async with aclosing(log.read(after=1)) as batches:
            waiting = asyncio.ensure_future(anext(batches))
            await append(log, "a", 2)
            async with asyncio.timeout(5):
                assert [record.position for record in await waiting] == [2]
                await append(log, "b", 1, 2)
                positions: list[int] = []
                while len(positions) < 2:
                    positions += [record.position for record in await anext(batches)]
        assert positions == [3, 4]

    async def test_a_reader_of_an_empty_log_waits_for_its_first_event(self, log: EventLog) -> None:
        async with aclosing(log.read(after=0)) as batches:
            waiting = asyncio.ensure_future(anext(batches))
            await append(log, "a", 1)
            async with asyncio.timeout(5):
                assert [record.position for record in await waiting] == [1]

    async def test_several_readers_get_everything_each(self, log: EventLog) -> None:
        async def all_positions() -> list[int]:
            return [
                record.position for batch in await read(log, after=0, until=100) for record in batch
            ]

        reading = asyncio.gather(*(all_positions() for _ in range(3)))
        for number in range(1, 51):
            await append(log, f"g{number}", 1, 2)
        async with asyncio.timeout(10):
            assert await reading == [list(range(1, 101))] * 3

    async def test_a_checkpoint_beyond_the_end_is_another_log(self, log: EventLog) -> None:
        await append(log, "a", 1)
        with pytest.raises(LogMismatch, match="ends at position 1"):
            await read(log, after=2)

    async def test_bytes_that_are_no_event_are_read_and_not_loaded(self, subject: Subject) -> None:
        name = Subjects(subject.root).generation("a")
        await append(subject.log, "a", 1)
        await subject.put(name, b"not an event")
        batches = await read(subject.log, after=0, until=2)
        assert [record.data for batch in batches for record in batch][1] == b"not an event"
        with pytest.raises(CorruptRecord, match=f"position 2, {name}"):
            await subject.log.load("generation", "a")
        before = await subject.log.load("generation", "a", until=1)
        assert [event.position for event in before.events] == [1]


class TestAddingToMany:
    @staticmethod
    def addition(generation_id: str, *attempts: int, expected: int | None = 0) -> Addition:
        return Addition(
            "generation",
            generation_id,
            tuple(started(generation_id, *attempts)),
            None if expected is None else ExpectedVersion(expected),
        )

    @staticmethod
    async def add(log: EventLog, additions: Sequence[Addition]) -> list[Added]:
        async def source() -> AsyncGenerator[Addition, None]:
            for addition in additions:
                yield addition

        async with aclosing(log.append_all(source())) as steps:
            return [step async for step in steps]

    @staticmethod
    def total(steps: Sequence[Added]) -> tuple[int, int, int, int]:
        return (
            sum(step.additions for step in steps),
            sum(step.events_written for step in steps),
            sum(step.events_there_before for step in steps),
            sum(len(step.conflicts) for step in steps),
        )

    async def test_every_aggregate_gets_its_events_in_order(self, log: EventLog) -> None:
        additions = [self.addition(f"g{number}", 1, 2, 3) for number in range(1000)]
        steps = await self.add(log, additions)
        assert self.total(steps) == (1000, 3000, 0, 0)
        assert max(step.position for step in steps) == await log.last_position() == 3000
        assert await attempts_in(log, "g17") == [1, 2, 3]
        assert await attempts_in(log, "g999") == [1, 2, 3]

    async def test_a_repeat_writes_nothing(self, log: EventLog) -> None:
        additions = [self.addition(f"g{number}", *range(1, number % 3 + 2)) for number in range(99)]
        first = self.total(await self.add(log, additions))
        assert first == (99, 198, 0, 0)
        assert self.total(await self.add(log, additions)) == (99, 0, 198, 0)
        assert await log.last_position() == 198

    async def test_an_import_that_was_cut_off_is_finished_by_a_repeat(self, log: EventLog) -> None:
        additions = [self.addition(f"g{number}", 1, 2) for number in range(50)]
        await self.add(log, additions[10:30])
        assert self.total(await self.add(log, additions)) == (50, 60, 40, 0)
        assert await log.last_position() == 100

    async def test_additions_that_meet_other_events_are_reported_and_the_rest_is_written(
        self, log: EventLog
    ) -> None:
        await append(log, "g3", 9)
        await append(log, "g5", 1)
        additions = [self.addition(f"g{number}", 1, 2) for number in range(8)]
        steps = await self.add(log, additions)
        conflicts = [conflict for step in steps for conflict in step.conflicts]
        assert conflicts == [additions[3], additions[5]]
        assert self.total(steps) == (8, 12, 0, 2)
        assert await attempts_in(log, "g3") == [9]
        assert await attempts_in(log, "g5") == [1]

    async def test_an_aggregate_may_come_twice(self, log: EventLog) -> None:
        additions = [
            self.addition("a", 1),
            self.addition("b", 1),
            self.addition("a", 2, expected=None),
        ]
        assert self.total(await self.add(log, additions)) == (3, 3, 0, 0)
        assert await attempts_in(log, "a") == [1, 2]

    async def test_no_additions_are_no_steps(self, log: EventLog) -> None:
        assert await self.add(log, []) == []

    async def test_an_addition_that_is_too_long_is_refused(self, log: EventLog) -> None:
        with pytest.raises(AppendTooLong):
            await self.add(log, [self.addition("a", *range(1, 1002))])
        assert await log.last_position() == 0
