"""What the doctor says of the log's server, its stream and its consumers, when it should."""

from __future__ import annotations

from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from nats.js.api import ConsumerConfig

from generation_svc.adapters.nats_runner.dead_letters import DeadLetter, DeadLetters
from generation_svc.adapters.nats_runner.runner import DURABLE
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.messaging.connection import connected
from shared.messaging.jetstream import ensure_consumer, jetstream_of
from shared.settings import LogSettings
from tests.doctoring import careless_nats, examined
from tests.generation_events import NOON
from velro.doctor.consumers import consumers_part
from velro.doctor.findings import Level
from velro.doctor.nats import MonitorSettings, Retrying, nats_part
from velro.stack import ports
from velro.stack.nats import nats_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from nats.aio.client import Client

    from velro.doctor.findings import Finding

# Whatever is written there finds no space left.
FULL = Path("/dev/full")
LARGE = bytes(1_000_000)
_LARGE_IN_A_BLOCK = 8
PATIENT = Retrying({"VELRO_STORAGE_LEASE_S": 60.0})


@pytest.fixture
def settings(nats_url: str, stream: str, subject_root: str) -> LogSettings:
    return LogSettings(nats_url=nats_url, stream=stream, subject_root=subject_root)


async def looked_at(
    settings: LogSettings, *, monitor_url: str | None = None, retrying: Retrying = PATIENT
) -> dict[str, Finding]:
    monitor = MonitorSettings(nats_monitor_url=monitor_url)
    return await examined(nats_part(settings, monitor, retrying))


@asynccontextmanager
async def with_stream(settings: LogSettings, **changed: object) -> AsyncGenerator[Client]:
    """The log's stream, but for what is changed."""
    async with connected(settings.nats_url, name="test") as connection:
        declaration = StreamDeclaration(name=settings.stream, subjects=settings.subjects)
        await ensure_stream(connection, declaration)
        if changed:
            subject = f"$JS.API.STREAM.UPDATE.{settings.stream}"
            wanted = {k: v for k, v in declaration.settings().items() if v is not None}
            await ask(connection, subject, wanted | changed, timeout_s=5)
        yield connection


async def test_a_stream_as_it_should_be_is_green(settings: LogSettings) -> None:
    async with with_stream(settings):
        found = await looked_at(settings)
    assert {name for name, finding in found.items() if finding.level is not Level.GREEN} == {
        "sync_interval",  # told by the monitoring alone, whose address was not given
        "health",  # the same
        "space",
    }


async def test_a_server_that_acknowledges_before_it_syncs_is_red(tmp_path: Path) -> None:
    with careless_nats(tmp_path) as (url, monitor_url):
        async with with_stream(LogSettings(nats_url=url)):
            found = await looked_at(LogSettings(nats_url=url), monitor_url=monitor_url)
        assert found["sync_interval"].level is Level.RED
        assert "power failure" in found["sync_interval"].found
        assert "sync_interval: always" in found["sync_interval"].advice
        assert found["space"].level is Level.GREEN


async def test_without_monitoring_what_only_it_tells_is_yellow_and_says_where_to_look(
    settings: LogSettings, tmp_path: Path
) -> None:
    async with with_stream(settings):
        unknown = (await looked_at(settings))["sync_interval"]
        silent = ports.choose(dict.fromkeys(("nobody",)), tmp_path / "ports.json")["nobody"]
        unreached = await looked_at(settings, monitor_url=f"http://127.0.0.1:{silent}")
        with careless_nats(tmp_path) as (_, other_url):
            other = (await looked_at(settings, monitor_url=other_url))["sync_interval"]
    for finding in (unknown, unreached["sync_interval"], other):
        assert finding.level is Level.YELLOW
        assert "VELRO_NATS_MONITOR_URL" in finding.advice or "same server" in finding.advice
    assert "not set" in unknown.found
    assert "another server" in other.found


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
async def test_a_server_that_could_not_write_is_red(tmp_path: Path) -> None:
    chosen = ports.choose(dict.fromkeys(("nats", "monitor")), tmp_path / "ports.json")
    here = LogSettings(nats_url=f"nats://127.0.0.1:{chosen['nats']}")
    monitor_url = f"http://127.0.0.1:{chosen['monitor']}"
    server = nats_server(tmp_path, port=chosen["nats"], monitor_port=chosen["monitor"], owned=True)
    server.start()
    try:
        async with with_stream(here) as connection:
            assert (await looked_at(here, monitor_url=monitor_url))["health"].level is Level.GREEN
            (blocks,) = tmp_path.glob("nats/jetstream/*/streams/*/msgs")  # noqa: ASYNC240 - a glance at a local folder
            (blocks / "2.blk").symlink_to(FULL)
            subject = here.subjects.of("storage", "a")
            for _ in range(_LARGE_IN_A_BLOCK):
                await connection.request(subject, LARGE, timeout=5)
            with pytest.raises(TimeoutError):
                await connection.request(subject, LARGE, timeout=2)
            health = (await looked_at(here, monitor_url=monitor_url))["health"]
    finally:
        server.kill()
    assert health.level is Level.RED
    assert "write error" in health.found
    assert "make room and restart it" in health.advice


async def test_a_stream_that_forgets_is_red(settings: LogSettings) -> None:
    async with with_stream(settings, max_age=3600 * 1_000_000_000):
        found = (await looked_at(settings))["stream"]
    assert found.level is Level.RED
    assert "max_age" in found.found


async def test_without_a_stream_it_says_that_the_log_may_be_gone(settings: LogSettings) -> None:
    found = await looked_at(settings)
    assert found["stream"].level is Level.RED
    assert "restore" in found["stream"].advice
    assert found["space"].level is Level.RED
    assert "see `nats: stream`" in found["space"].advice


async def test_fewer_replicas_than_were_asked_for_are_red(settings: LogSettings) -> None:
    async with with_stream(settings):
        wanting = settings.model_copy(update={"log_replicas": 3})
        assert (await looked_at(wanting))["replicas"].level is Level.RED


async def test_a_duplicate_window_shorter_than_work_may_take_is_yellow(
    settings: LogSettings,
) -> None:
    async with with_stream(settings):
        retrying = Retrying({"VELRO_STORAGE_LEASE_S": 600.0, "VELRO_RUNNER_ACK_WAIT_S": 30.0})
        found = (await looked_at(settings, retrying=retrying))["duplicate window"]
    assert found.level is Level.YELLOW
    assert "VELRO_STORAGE_LEASE_S" in found.found
    assert "600" in found.advice


async def test_a_stream_that_is_nearly_full_is_red(settings: LogSettings) -> None:
    async with with_stream(settings, max_bytes=10_000) as connection:
        subject = Subjects(settings.subject_root).generation("g1")
        await connection.request(subject, bytes(9_600), timeout=5)
        found = (await looked_at(settings))["space"]
    assert found.level is Level.RED
    assert "max_bytes" in found.found


async def test_a_server_that_is_away_is_one_red_finding(
    settings: LogSettings, tmp_path: Path
) -> None:
    port = ports.choose(dict.fromkeys(("nobody",)), tmp_path / "ports.json")["nobody"]
    away = settings.model_copy(update={"nats_url": f"nats://127.0.0.1:{port}"})
    found = await looked_at(away)
    assert [finding.level for finding in found.values()] == [Level.RED]
    assert "VELRO_NATS_URL" in found["nats"].advice


async def test_a_consumer_that_nobody_pulls_from_is_red(settings: LogSettings) -> None:
    async with with_stream(settings) as connection:
        jetstream = jetstream_of(connection)
        missing = (await examined(consumers_part(settings)))[DURABLE]
        await ensure_consumer(
            jetstream, settings.stream, ConsumerConfig(durable_name=DURABLE, ack_wait=30)
        )
        left = (await examined(consumers_part(settings)))[DURABLE]
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{DURABLE}"
        await connection.subscribe("_INBOX.somebody")  # pyright: ignore[reportUnknownMemberType] - one parameter is untyped
        await connection.publish(subject, b"1", reply="_INBOX.somebody")
        await connection.flush()
        pulled = (await examined(consumers_part(settings)))[DURABLE]
    assert (missing.level, left.level, pulled.level) == (Level.RED, Level.RED, Level.GREEN)
    assert "does not exist" in missing.found
    assert "nobody asks" in left.found


async def test_dead_letters_are_yellow_with_the_command_that_shows_them(
    settings: LogSettings,
) -> None:
    async with with_stream(settings) as connection:
        letters = DeadLetters(jetstream_of(connection), settings.stream, settings.subject_root)
        await letters.ensure()
        assert (await examined(consumers_part(settings)))["dead letters"].level is Level.GREEN
        letter = DeadLetter(
            generation_id="g1", position=1, deliveries=10, reason="why", detail="so", at=NOON
        )
        await letters.park(letter)
        found = (await examined(consumers_part(settings)))["dead letters"]
    assert found.level is Level.YELLOW
    assert "velro dead-letters list" in found.advice
