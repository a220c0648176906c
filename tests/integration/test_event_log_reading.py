"""A reader of the real log, while consumers vanish, streams change and messages are dropped."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from nats.aio.client import Client

from shared.contracts.envelope import Context, Envelope, seal
from shared.contracts.generation_events import GenerationCancelled, SubmissionStarted
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.jetstream_tail import ReadLimits
from shared.event_log.port import LogMismatch, LogUnavailable
from shared.messaging.connection import connected

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


class Clumsy(Client):
    """Loses the deliveries it is told to, as nats-py does with those over its pending limits."""

    def __init__(self) -> None:
        super().__init__()
        self.loses: set[int] = set()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if reply.startswith(b"$JS.ACK.") and (position := int(reply.split(b".")[5])) in self.loses:
            self.loses.remove(position)
            return
        await super()._process_msg(sid, subject, reply, data, headers)


@pytest.fixture
async def connection(nats_url: str, stream: str) -> AsyncIterator[Client]:
    async with connected(nats_url, name="reading-tests") as connection:
        await declare(connection, stream)
        yield connection


@pytest.fixture
def log(connection: Client, stream: str) -> JetStreamLog:
    return log_with(connection, stream)


def log_with(connection: Client, root: str, **limits: Any) -> JetStreamLog:  # noqa: ANN401 - several types
    quick = ReadLimits(batch=50, heartbeat_s=0.1, silence_s=0.5)
    return JetStreamLog(
        connection, Subjects(root), stream=root, read_limits=replace(quick, **limits)
    )


async def declare(connection: Client, root: str) -> None:
    await ensure_stream(connection, StreamDeclaration(name=root, subjects=Subjects(root)))


async def delete(connection: Client, root: str) -> None:
    await ask(connection, f"$JS.API.STREAM.DELETE.{root}", None, timeout_s=5)


async def consumers(connection: Client, root: str) -> list[str]:
    answer = await ask(connection, f"$JS.API.CONSUMER.NAMES.{root}", None, timeout_s=5)
    return answer["consumers"] or []


async def fill(log: JetStreamLog, first: int, last: int, *, padding: int = 0) -> None:
    """Events so that the log ends at `last`, in batches."""
    for begin in range(first, last + 1, 100):
        numbers = range(begin, min(begin + 100, last + 1))
        await log.append(
            "generation", f"g{begin}", events(begin, len(numbers), padding), expected=None
        )


def events(number: int, count: int, padding: int) -> list[Envelope]:
    context = Context(source="test", correlation_id="x" * padding or None)
    return [
        seal(SubmissionStarted(attempt=n + 1), generation_id=f"g{number}", at=AT, context=context)
        for n in range(count)
    ]


async def positions(log: JetStreamLog, *, after: int, until: int) -> list[int]:
    async with aclosing(log.read(after=after, until=until)) as batches, asyncio.timeout(20):
        return [record.position async for batch in batches for record in batch]


async def until_true(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while not await condition():  # noqa: ASYNC110 - the server's state has no event
            await asyncio.sleep(0.01)


async def test_a_dropped_delivery_is_read_again_and_not_passed_by(
    nats_url: str, log: JetStreamLog, stream: str
) -> None:
    await fill(log, 1, 500)
    clumsy = Clumsy()
    async with clumsy:
        await clumsy.connect(nats_url)
        clumsy.loses = {1, 77, 78, 300, 500}
        read = await positions(log_with(clumsy, stream), after=0, until=500)
    assert read == list(range(1, 501))
    assert clumsy.loses == set()


async def test_a_deleted_consumer_is_made_anew(
    connection: Client, log: JetStreamLog, stream: str
) -> None:
    await fill(log, 1, 10)
    async with aclosing(log.read(after=0)) as batches:
        assert (await anext(batches))[-1].position == 10
        waiting = asyncio.ensure_future(anext(batches))
        (first,) = await consumers(connection, stream)
        await ask(connection, f"$JS.API.CONSUMER.DELETE.{stream}.{first}", None, timeout_s=5)
        await fill(log, 11, 11)
        async with asyncio.timeout(10):
            assert [record.position for record in await waiting] == [11]


async def test_a_stream_that_is_deleted_is_an_error_and_not_silence(
    connection: Client, log: JetStreamLog, stream: str
) -> None:
    await fill(log, 1, 10)
    async with aclosing(log.read(after=0)) as batches:
        await anext(batches)
        waiting = asyncio.ensure_future(anext(batches))
        await until_true(lambda: one_consumer(connection, stream))
        await delete(connection, stream)
        async with asyncio.timeout(10):
            with pytest.raises(LogUnavailable, match="does not exist"):
                await waiting


async def one_consumer(connection: Client, root: str) -> bool:
    return len(await consumers(connection, root)) == 1


@pytest.mark.parametrize("events_again", [5, 30], ids=["shorter", "longer"])
async def test_a_stream_that_is_made_anew_is_an_error_however_long_it_is(
    connection: Client, log: JetStreamLog, stream: str, events_again: int
) -> None:
    await fill(log, 1, 10)
    async with aclosing(log.read(after=0)) as batches:
        await anext(batches)
        await delete(connection, stream)
        await declare(connection, stream)
        await fill(log, 1, events_again)
        async with asyncio.timeout(10):
            with pytest.raises(LogMismatch, match="made anew"):
                await anext(batches)


async def test_a_log_whose_beginning_is_gone_is_not_read_as_if_it_were_whole(
    connection: Client, log: JetStreamLog, stream: str
) -> None:
    await fill(log, 1, 100)
    await ask(connection, f"$JS.API.STREAM.PURGE.{stream}", {"seq": 41}, timeout_s=5)
    with pytest.raises(LogMismatch, match=r"begins at position 41: 1 to 40"):
        await positions(log, after=0, until=100)
    with pytest.raises(LogMismatch):
        await positions(log, after=39, until=100)
    assert await positions(log, after=40, until=100) == list(range(41, 101))


async def test_positions_that_vanish_while_they_are_read_are_an_error(
    connection: Client, log: JetStreamLog, stream: str
) -> None:
    await fill(log, 1, 1000)
    async with aclosing(log.read(after=0)) as batches, asyncio.timeout(10):
        await anext(batches)
        await ask(connection, f"$JS.API.STREAM.PURGE.{stream}", {"seq": 901}, timeout_s=5)
        with pytest.raises(LogMismatch, match="comes 901"):
            async for _ in batches:
                pass


async def test_an_empty_log_that_begins_further_on_keeps_its_positions(
    connection: Client, log: JetStreamLog, stream: str
) -> None:
    await delete(connection, stream)
    settings = StreamDeclaration(name=stream, subjects=Subjects(stream)).settings()
    kept = {name: value for name, value in settings.items() if value not in (None, "default")}
    await ask(
        connection,
        f"$JS.API.STREAM.CREATE.{stream}",
        {**kept, "first_seq": 1001},
        timeout_s=5,
    )
    assert await log.last_position() == 1000
    async with aclosing(log.read(after=1000)) as batches, asyncio.timeout(10):
        waiting = asyncio.ensure_future(anext(batches))
        await fill(log, 1, 1)
        assert [record.position for record in await waiting] == [1001]
    with pytest.raises(LogMismatch, match="begins at position 1001"):
        await positions(log, after=0, until=1001)


async def test_large_events_are_read_in_pulls_that_end_by_bytes(
    connection: Client, stream: str
) -> None:
    log = log_with(connection, stream, batch=2000, batch_bytes=1)  # the least: two payloads
    big = [
        seal(
            GenerationCancelled(reason="x" * 2000),
            generation_id=f"g{number}",
            at=AT,
            context=Context(source="test", correlation_id="y" * 500_000),
        )
        for number in range(20)
    ]
    for envelope in big:
        await log.append("generation", envelope.subject, [envelope], expected=None)
    await fill(log, 21, 3000)
    assert await positions(log, after=0, until=3000) == list(range(1, 3001))


async def test_pulls_that_expire_are_asked_for_again(connection: Client, stream: str) -> None:
    log = log_with(connection, stream, pull_s=0.3)
    await fill(log, 1, 10)
    async with aclosing(log.read(after=0)) as batches, asyncio.timeout(20):
        await anext(batches)
        for position in (11, 12, 13):
            waiting = asyncio.ensure_future(anext(batches))
            await expired_pull(connection, stream)
            await fill(log, position, position)
            assert [record.position for record in await waiting] == [position]
        assert len(await consumers(connection, stream)) == 1


async def expired_pull(connection: Client, root: str) -> None:
    """Wait until the consumer's two pulls were gone and are back."""
    (name,) = await consumers(connection, root)
    before = connection.stats["in_msgs"]

    async def heard_of() -> bool:
        info = await ask(connection, f"$JS.API.CONSUMER.INFO.{root}.{name}", None, timeout_s=5)
        # Two heartbeats a tenth of a second, and a status when a pull ends after three.
        return connection.stats["in_msgs"] - before > 100 and info["num_waiting"] == 2

    await until_true(heard_of)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
async def test_a_reader_leaves_no_consumer_and_no_subscription_behind(
    connection: Client, log: JetStreamLog, stream: str, how: str
) -> None:
    await fill(log, 1, 10)
    subscriptions = len(connection._subs)  # pyright: ignore[reportPrivateUsage] - the proof
    batches = log.read(after=0)
    await anext(batches)
    assert len(await consumers(connection, stream)) == 1
    if how == "cancelled":
        waiting = asyncio.ensure_future(anext(batches))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    else:
        await batches.aclose()
    assert await consumers(connection, stream) == []
    assert len(connection._subs) == subscriptions  # pyright: ignore[reportPrivateUsage] - the proof


async def test_a_reader_that_is_slow_holds_no_more_than_two_batches(
    connection: Client, log: JetStreamLog, stream: str
) -> None:
    await fill(log, 1, 1000)
    async with aclosing(log.read(after=0)) as batches, asyncio.timeout(10):
        seen = [record.position for record in await anext(batches)]
        (name,) = await consumers(connection, stream)
        await ask(connection, "$JS.API.INFO", None, timeout_s=5)  # what was on its way is here
        info = await ask(connection, f"$JS.API.CONSUMER.INFO.{stream}.{name}", None, timeout_s=5)
        assert info["delivered"]["stream_seq"] <= 150
        while seen[-1] < 1000:
            seen += [record.position for record in await anext(batches)]
    assert seen == list(range(1, 1001))


async def test_while_there_is_more_to_read_batches_are_full(log: JetStreamLog) -> None:
    await fill(log, 1, 1000)
    async with aclosing(log.read(after=0, until=1000)) as batches:
        assert [len(batch) async for batch in batches] == [50] * 20
