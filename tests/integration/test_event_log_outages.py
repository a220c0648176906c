"""The log while its own server is stopped, frozen or started again."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, asynccontextmanager, closing, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import pytest

from shared.contracts.envelope import Context, Envelope, seal
from shared.contracts.generation_events import SubmissionStarted
from shared.contracts.subjects import Subjects
from shared.errors import TryLater
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.jetstream_tail import ReadLimits
from shared.event_log.port import (
    NOTHING_YET,
    Addition,
    Appended,
    AppendOutcomeUnknown,
    ExpectedVersion,
    LogUnavailable,
    VersionConflict,
)
from shared.messaging.connection import connected

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from nats.aio.client import Client

    from tests.servers.port import OwnNats, Server

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
T = TypeVar("T")
SHORT_S = 0.3


class Line:
    """A line to the server on which its answers can be held up."""

    def __init__(self, url: str) -> None:
        self._host, _, port = url.removeprefix("nats://").partition(":")
        self._port = int(port)
        self._clear = asyncio.Event()
        self._clear.set()
        self._directions: set[asyncio.Future[None]] = set()

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None]:
        """What the client says arrives, and it hears nothing."""
        self._clear.clear()
        try:
            yield
        finally:
            self._clear.set()

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[str]:
        """The address at this end."""
        listener = await asyncio.start_server(self._call, "127.0.0.1", 0)
        async with listener:
            yield f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
            for direction in self._directions:
                direction.cancel()

    async def _call(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Closed however this ends: asyncio of Python 3.11 leaves it open where this is cancelled.
        with closing(writer), suppress(OSError):
            upstream_reader, upstream_writer = await asyncio.open_connection(self._host, self._port)
            with closing(upstream_writer):
                there = asyncio.ensure_future(self._carry(reader, upstream_writer, wait=False))
                back = asyncio.ensure_future(self._carry(upstream_reader, writer, wait=True))
                self._directions |= {there, back}
                await asyncio.wait([there, back], return_when=asyncio.FIRST_COMPLETED)
                for direction in (there, back):
                    direction.cancel()
                self._directions -= {there, back}

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, wait: bool
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if wait:
                    await self._clear.wait()
                writer.write(data)
                await writer.drain()


@pytest.fixture
def server(own_nats: OwnNats) -> Server:
    return own_nats.server


@pytest.fixture
async def line(own_nats: OwnNats) -> Line:
    return Line(own_nats.url)


@pytest.fixture
async def connection(line: Line) -> AsyncIterator[Client]:
    async with line.opened() as url, connected(url, name="outage-tests") as connection:
        yield connection


@pytest.fixture
async def log(connection: Client) -> JetStreamLog:
    await ensure_stream(connection, StreamDeclaration())
    return JetStreamLog(
        connection, Subjects(), timeout_s=2.0, read_limits=ReadLimits(batch=50, silence_s=1.0)
    )


def impatient(connection: Client) -> JetStreamLog:
    return JetStreamLog(connection, Subjects(), timeout_s=SHORT_S)


def started(generation_id: str, *attempts: int) -> list[Envelope]:
    context = Context(source="test")
    return [
        seal(SubmissionStarted(attempt=n), generation_id=generation_id, at=AT, context=context)
        for n in attempts
    ]


async def attempts_in(log: JetStreamLog, generation_id: str) -> list[int]:
    history = await log.load("generation", generation_id)
    facts = [recorded.envelope.data for recorded in history.events]
    return [fact.attempt for fact in facts if isinstance(fact, SubmissionStarted)]


async def until(condition: Callable[[], bool]) -> None:
    async def asked() -> bool:
        return condition()

    await until_true(asked)


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - the server's state has no event
            await asyncio.sleep(0.01)


async def until_it_works(work: Callable[[], Awaitable[T]]) -> T:
    async with asyncio.timeout(20):
        while True:
            try:
                return await work()
            except TryLater:
                await asyncio.sleep(0.02)


class TestAppending:
    @pytest.mark.parametrize("attempts", [(1,), (1, 2, 3)], ids=["one event", "a batch"])
    async def test_after_an_unknown_outcome_the_repeat_is_a_duplicate(
        self,
        line: Line,
        connection: Client,
        log: JetStreamLog,
        attempts: tuple[int, ...],
    ) -> None:
        events = started("a", *attempts)
        async with line.held():
            with pytest.raises(AppendOutcomeUnknown, match="no answer within"):
                await impatient(connection).append("generation", "a", events, expected=NOTHING_YET)
        again = await log.append("generation", "a", events, expected=NOTHING_YET)
        assert again == Appended(len(attempts), duplicate=True)
        assert await attempts_in(log, "a") == list(attempts)

    async def test_an_append_that_finds_no_room_to_be_sent_was_not_written(
        self, line: Line, connection: Client, log: JetStreamLog
    ) -> None:
        crowd = impatient(connection)
        async with line.held():
            results = await asyncio.gather(
                *(
                    crowd.append("generation", f"g{n}", started(f"g{n}", 1, 2), expected=None)
                    for n in range(200)
                ),
                return_exceptions=True,
            )
        unknown = [n for n, r in enumerate(results) if isinstance(r, AppendOutcomeUnknown)]
        not_sent = [n for n, r in enumerate(results) if isinstance(r, LogUnavailable)]
        # 16 batches may be open at once. The end of their deadlines makes room for the others
        # just before the end of theirs, so some of those are sent too.
        assert len(unknown) >= 16
        assert len(not_sent) > 0
        assert len(unknown) + len(not_sent) == 200
        await until_it_works(
            lambda: log.append("generation", "last", started("last", 1), expected=None)
        )
        for number in not_sent:
            assert await attempts_in(log, f"g{number}") == []

    async def test_without_a_connection_nothing_is_written(
        self, server: Server, connection: Client, log: JetStreamLog
    ) -> None:
        server.kill()
        await until(lambda: not connection.is_connected)
        with pytest.raises(LogUnavailable, match="no connection"):
            await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        server.start()
        await until_it_works(
            lambda: log.append("generation", "b", started("b", 1), expected=NOTHING_YET)
        )
        assert await attempts_in(log, "a") == []
        assert await attempts_in(log, "b") == [1]

    async def test_appends_go_on_through_kills_and_nothing_is_lost_or_doubled(
        self, server: Server, log: JetStreamLog
    ) -> None:
        acknowledged: dict[str, int] = {}

        async def write(writer: int) -> None:
            for number in range(60):
                name = f"w{writer}-{number}"
                events = started(name, 1, 2) if number % 3 == 0 else started(name, 1)

                async def append() -> Appended:
                    return await log.append("generation", name, events, expected=NOTHING_YET)  # noqa: B023 - awaited in this round

                acknowledged[name] = (await until_it_works(append)).position

        writing = asyncio.gather(*(write(writer) for writer in range(8)))
        for threshold in (100, 250):
            await until(lambda: len(acknowledged) >= threshold)  # noqa: B023 - awaited in this round
            server.kill()
            server.start()
        async with asyncio.timeout(30):
            await writing
        assert len(acknowledged) == 480
        for name, position in acknowledged.items():
            history = await log.load("generation", name)
            assert history.version == position
            assert len(history.events) == (2 if int(name.split("-")[1]) % 3 == 0 else 1)
        assert await log.last_position() == 8 * (20 * 2 + 40)

    async def test_an_import_that_was_cut_off_by_a_kill_is_finished_by_a_repeat(
        self, server: Server, log: JetStreamLog
    ) -> None:
        async def additions() -> AsyncGenerator[Addition, None]:
            for number in range(9000):
                yield Addition("generation", f"g{number}", tuple(started(f"g{number}", 1)))

        async def add(*, kill_after: int | None) -> int:
            written = 0
            async with aclosing(log.append_all(additions())) as steps:
                async for step in steps:
                    written += step.events_written
                    assert not step.conflicts
                    if kill_after is not None and written >= kill_after:
                        server.kill()
                        server.start()
                        kill_after = None
            return written

        with pytest.raises(TryLater):
            await add(kill_after=3000)
        await until_it_works(lambda: add(kill_after=None))
        assert await log.last_position() == 9000

    async def test_outside_the_duplicate_window_the_expected_version_refuses_a_second_event(
        self, connection: Client
    ) -> None:
        await ensure_stream(connection, StreamDeclaration(duplicate_window_s=0.2))
        log = JetStreamLog(connection, Subjects())
        first = await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        await log.append("generation", "a", started("a", 2, 3), expected=ExpectedVersion(1))

        # An id that was written after them is forgotten: so are theirs.
        async def forgotten() -> bool:
            await log.append("generation", "clock", started("clock", 1), expected=None)
            return await log.last_position() >= 5

        await until_true(forgotten)
        end = await log.last_position()
        assert await log.append(
            "generation", "a", started("a", 1), expected=NOTHING_YET
        ) == Appended(first.position, duplicate=True)
        assert await log.append(
            "generation", "a", started("a", 2, 3), expected=ExpectedVersion(1)
        ) == Appended(3, duplicate=True)
        with pytest.raises(VersionConflict):
            await log.append("generation", "a", started("a", 3, 4), expected=ExpectedVersion(2))
        assert await log.last_position() == end
        assert await attempts_in(log, "a") == [1, 2, 3]


class TestReading:
    async def test_a_reader_goes_on_through_restarts_without_a_gap_or_a_repetition(
        self, server: Server, log: JetStreamLog
    ) -> None:
        positions: list[int] = []

        async def read() -> None:
            async with aclosing(log.read(after=0, until=600)) as batches:
                async for batch in batches:
                    positions.extend(record.position for record in batch)

        reading = asyncio.ensure_future(read())
        for number in range(1, 301):
            name = f"g{number}"

            async def append() -> Appended:
                return await log.append("generation", name, started(name, 1, 2), expected=None)  # noqa: B023 - awaited in this round

            await until_it_works(append)
            if number in (100, 200):
                server.kill()
                server.start()
        async with asyncio.timeout(20):
            await reading
        assert positions == list(range(1, 601))

    async def test_a_reader_notices_silence_and_goes_on_after_it(
        self, line: Line, log: JetStreamLog, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await log.append("generation", "a", started("a", 1), expected=None)
        async with aclosing(log.read(after=0)) as batches:
            assert [record.position for record in await anext(batches)] == [1]
            waiting = asyncio.ensure_future(anext(batches))
            async with line.held():
                await until(lambda: "no message and no heartbeat" in capsys.readouterr().out)
            await until_it_works(
                lambda: log.append("generation", "b", started("b", 1), expected=None)
            )
            async with asyncio.timeout(20):
                assert [record.position for record in await waiting] == [2]

    async def test_a_reader_gives_up_when_its_patience_ends(
        self, server: Server, connection: Client, log: JetStreamLog
    ) -> None:
        await log.append("generation", "a", started("a", 1), expected=None)
        limits = ReadLimits(silence_s=0.3, heartbeat_s=0.1, patience_s=0.5)
        impatient = JetStreamLog(connection, Subjects(), read_limits=limits)
        async with aclosing(impatient.read(after=0)) as batches:
            assert [record.position for record in await anext(batches)] == [1]
            server.kill()
            async with asyncio.timeout(20):
                with pytest.raises(LogUnavailable, match="cannot be read after position 1"):
                    await anext(batches)
        server.start()
