"""The log's stream on the real server: how it is made, what it refuses, what it says."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from shared.contracts.envelope import Context, Envelope, seal
from shared.contracts.generation_events import GenerationCancelled, SubmissionStarted
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.port import (
    NOTHING_YET,
    Addition,
    AppendOutcomeUnknown,
    EventTooLarge,
    LogFull,
    LogMismatch,
    LogUnavailable,
)
from shared.messaging.connection import BrokerUnavailable, connect, connected, drain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from nats.aio.client import Client

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)


def started(generation_id: str, *attempts: int) -> list[Envelope]:
    context = Context(source="test")
    return [
        seal(SubmissionStarted(attempt=n), generation_id=generation_id, at=AT, context=context)
        for n in attempts
    ]


@pytest.fixture
async def connection(nats_url: str) -> AsyncIterator[Client]:
    async with connected(nats_url, name="stream-tests") as connection:
        yield connection


@pytest.fixture
def declaration(stream: str) -> StreamDeclaration:
    return StreamDeclaration(name=stream, subjects=Subjects(stream))


@pytest.fixture
def log(connection: Client, stream: str) -> JetStreamLog:
    return JetStreamLog(connection, Subjects(stream), stream=stream, timeout_s=5.0)


async def settings(connection: Client, name: str) -> dict[str, Any]:
    return (await ask(connection, f"$JS.API.STREAM.INFO.{name}", None, timeout_s=5))["config"]


async def make(connection: Client, declaration: StreamDeclaration, **other: object) -> None:
    config = {k: v for k, v in declaration.settings().items() if v is not None} | other
    if config.get("persist_mode") == "default":
        del config["persist_mode"]
    await ask(connection, f"$JS.API.STREAM.CREATE.{declaration.name}", config, timeout_s=5)


async def fill(log: JetStreamLog) -> None:
    for number in range(2, 9):
        await log.append("generation", "a", started("a", number), expected=None)


class TestDeclaring:
    async def test_a_stream_is_made_as_designed_where_there_is_none(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        await ensure_stream(connection, declaration)
        made = await settings(connection, declaration.name)
        designed = {
            "subjects": declaration.subjects.all(),
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "max_age": 0,
            "max_bytes": -1,
            "max_msgs": -1,
            "deny_delete": True,
            "allow_direct": True,
            "allow_atomic": True,
            "compression": "s2",
            "num_replicas": 1,
            "duplicate_window": 120_000_000_000,
        }
        assert {name: made[name] for name in designed} == designed

    async def test_it_is_found_again_and_left_alone(
        self, connection: Client, declaration: StreamDeclaration, log: JetStreamLog
    ) -> None:
        await asyncio.gather(*(ensure_stream(connection, declaration) for _ in range(5)))
        await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        await ensure_stream(connection, declaration)
        assert await log.last_position() == 1

    async def test_every_setting_that_differs_is_named(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        await make(
            connection,
            declaration,
            max_age=10**12,
            compression="none",
            deny_delete=False,
            subjects=[f"{declaration.name}.>"],
            duplicate_window=10**9,
        )
        with pytest.raises(LogMismatch) as caught:
            await ensure_stream(connection, declaration)
        message = str(caught.value)
        for name in ("max_age", "compression", "deny_delete", "subjects"):
            assert f"{name} is " in message
        assert "duplicate_window" not in message  # it could be lengthened, but nothing was touched
        assert (await settings(connection, declaration.name))["duplicate_window"] == 10**9

    @pytest.mark.parametrize(
        "other", [{"discard": "old"}, {"max_msgs": 5}, {"max_bytes": 10**6}, {"storage": "memory"}]
    )
    async def test_what_could_lose_an_event_is_a_mismatch(
        self, connection: Client, declaration: StreamDeclaration, other: dict[str, object]
    ) -> None:
        await make(connection, declaration, **other)
        with pytest.raises(LogMismatch, match=next(iter(other))):
            await ensure_stream(connection, declaration)

    async def test_what_is_only_missing_is_added(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        await make(
            connection,
            declaration,
            allow_direct=False,
            allow_atomic=False,
            duplicate_window=10**9,
            description="kept",
        )
        await ensure_stream(connection, declaration)
        made = await settings(connection, declaration.name)
        assert (made["allow_direct"], made["allow_atomic"]) == (True, True)
        assert made["duplicate_window"] == 120_000_000_000
        assert made["description"] == "kept"

    async def test_a_longer_duplicate_window_stays(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        await make(connection, declaration, duplicate_window=600 * 10**9)
        await ensure_stream(connection, declaration)
        made = await settings(connection, declaration.name)
        assert made["duplicate_window"] == 600 * 10**9

    async def test_subjects_of_another_stream_are_a_mismatch(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        await ensure_stream(connection, declaration)
        twin = StreamDeclaration(name=f"{declaration.name}-2", subjects=declaration.subjects)
        with pytest.raises(LogMismatch, match="overlap"):
            await ensure_stream(connection, twin)


class TestRefusals:
    async def test_without_its_stream_the_log_is_unavailable(self, log: JetStreamLog) -> None:
        async def additions() -> AsyncGenerator[Addition, None]:
            yield Addition("generation", "a", tuple(started("a", 1, 2)))

        with pytest.raises(LogUnavailable, match="no stream"):
            await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        with pytest.raises(LogUnavailable, match="no stream"):
            await log.append("generation", "a", started("a", 1, 2), expected=NOTHING_YET)
        with pytest.raises(LogUnavailable, match="no stream"):
            async with aclosing(log.append_all(additions())) as steps:
                await anext(steps)
        with pytest.raises(LogUnavailable):
            await log.load("generation", "a")
        with pytest.raises(LogUnavailable, match="not found"):
            await log.last_position()
        with pytest.raises(LogUnavailable, match="does not exist"):
            async with aclosing(log.read(after=0)) as batches:
                await anext(batches)

    @pytest.mark.parametrize("limit", [{"max_msgs": 3}, {"max_bytes": 900}])
    async def test_a_full_log_refuses_and_keeps_what_it_has(
        self,
        connection: Client,
        declaration: StreamDeclaration,
        log: JetStreamLog,
        limit: dict[str, int],
    ) -> None:
        await make(connection, declaration, **limit)
        await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        with pytest.raises(LogFull, match="exceeded"):
            await log.append("generation", "b", started("b", 1, 2, 3), expected=NOTHING_YET)
        assert await log.last_position() == 1
        with pytest.raises(LogFull, match="exceeded"):
            await fill(log)
        history = await log.load("generation", "a")
        assert history.events[0].envelope == started("a", 1)[0]
        assert history.version == await log.last_position() <= 3

    async def test_a_limit_of_the_stream_on_an_events_size_is_told(
        self, connection: Client, declaration: StreamDeclaration, log: JetStreamLog
    ) -> None:
        await make(connection, declaration, max_msg_size=600)
        long = seal(
            GenerationCancelled(reason="x" * 500),
            generation_id="a",
            at=AT,
            context=Context(source="test"),
        )
        with pytest.raises(EventTooLarge, match="size exceeds"):
            await log.append("generation", "a", [long], expected=NOTHING_YET)
        with pytest.raises(EventTooLarge, match="size exceeds"):
            await log.append("generation", "a", [*started("a", 1), long], expected=NOTHING_YET)
        assert await log.last_position() == 0

    async def test_where_too_many_batches_are_open_another_one_is_not_written(
        self, connection: Client, declaration: StreamDeclaration, log: JetStreamLog
    ) -> None:
        await ensure_stream(connection, declaration)
        name = declaration.subjects.generation("others")
        for number in range(50):
            headers = {"Nats-Batch-Id": f"{number}", "Nats-Batch-Sequence": "1"}
            await connection.request(name, b"{}", timeout=5, headers=headers)
        with pytest.raises(LogUnavailable, match="atomic publish"):
            await log.append("generation", "a", started("a", 1, 2), expected=NOTHING_YET)
        assert (await log.append("generation", "a", started("a", 1), expected=None)).position == 1

    async def test_a_subject_that_belongs_to_another_stream_is_a_mismatch(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        await ensure_stream(connection, declaration)
        log = JetStreamLog(connection, declaration.subjects, stream="ANOTHER")
        with pytest.raises(LogMismatch, match="expected stream"):
            await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        with pytest.raises(LogMismatch, match="expected stream"):
            await log.append("generation", "a", started("a", 1, 2), expected=NOTHING_YET)

    async def test_a_log_that_answers_no_append_is_known_until_it_answers_one(
        self, connection: Client, declaration: StreamDeclaration
    ) -> None:
        # As a server whose disk was full, this stream reads on and answers nothing that is written.
        await make(connection, declaration, no_ack=True, allow_atomic=False)
        log = JetStreamLog(connection, declaration.subjects, stream=declaration.name, timeout_s=0.3)
        assert log.problem is None
        with pytest.raises(AppendOutcomeUnknown, match=r"no answer within 0\.3 s"):
            await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        assert log.problem is not None
        assert "until there is room and it is restarted" in log.problem
        config = await settings(connection, declaration.name)
        answering = config | {"no_ack": False}
        await ask(connection, f"$JS.API.STREAM.UPDATE.{declaration.name}", answering, timeout_s=5)
        await log.append("generation", "b", started("b", 1), expected=NOTHING_YET)
        assert log.problem is None

    async def test_a_stream_that_takes_no_batches_is_a_mismatch(
        self, connection: Client, declaration: StreamDeclaration, log: JetStreamLog
    ) -> None:
        await make(connection, declaration, allow_atomic=False)
        with pytest.raises(LogMismatch, match="disabled"):
            await log.append("generation", "a", started("a", 1, 2), expected=NOTHING_YET)


class TestConnecting:
    async def test_a_server_that_is_not_there_is_told_in_time(self) -> None:
        with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 within"):
            await connect("nats://127.0.0.1:1", name="nobody", timeout_s=0.3)

    async def test_a_drained_connection_appends_nothing_and_says_so(
        self, nats_url: str, declaration: StreamDeclaration
    ) -> None:
        connection = await connect(nats_url, name="drained")
        log = JetStreamLog(connection, declaration.subjects, stream=declaration.name)
        await drain(connection)
        assert connection.is_closed
        with pytest.raises(LogUnavailable, match="no connection"):
            await log.append("generation", "a", started("a", 1), expected=NOTHING_YET)
        with pytest.raises(LogUnavailable, match="no connection"):
            await log.load("generation", "a")
        with pytest.raises(LogUnavailable, match="no connection"):
            async with aclosing(log.read(after=0)) as batches:
                await anext(batches)
        await drain(connection)  # a second time changes nothing
