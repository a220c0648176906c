"""The log is rolled back, cut, deleted or forked for real: it is not projected nor added to."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import aclosing, asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import NAME
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.event_log.port import LogMismatch, LogUnavailable
from shared.messaging.jetstream import jetstream_of
from shared.projection.recognised_log import RecognisedLog
from shared.projection.runner import ProjectorState
from shared.projection.tables import QUERIES
from tests.generation_events import REQUESTED, STARTED, SUBMITTED, completed
from tests.http_service import BODY, HttpService
from tests.projecting import World, same_as, until, until_state, world
from velro.stack import ports
from velro.stack.nats import nats_server
from velro.stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shared.contracts.subjects import Subjects
    from tests.servers.port import OwnNats


@pytest.fixture
async def here(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[World]:
    async with world(nats_url, stream, subjects, database) as opened:
        yield opened


async def made_anew(here: World) -> None:
    await jetstream_of(here.nats).delete_stream(here.stream)
    await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))


class RolledBack:
    """What a server holds now, to be what it holds again."""

    def __init__(self, own: OwnNats, aside: Path) -> None:
        if not isinstance(own.server, ManagedProcess):
            pytest.skip("the data of a server in a container is not at hand")
        self.server = own.server
        self.data = own.server.directory / own.server.name
        self.aside = aside

    async def stop(self, here: World) -> None:
        await asyncio.to_thread(self.server.stop)
        await until(lambda: not here.nats.is_connected)

    async def keep(self, here: World) -> None:
        """It is stopped for that: its files are whole then."""
        await self.stop(here)
        shutil.copytree(self.data, self.aside / "nats")
        await asyncio.to_thread(self.server.start)
        await until(lambda: here.nats.is_connected)

    async def put_back(self) -> None:
        shutil.rmtree(self.data)
        shutil.move(self.aside / "nats", self.data)
        await asyncio.to_thread(self.server.start)

    @asynccontextmanager
    async def elsewhere(self) -> AsyncGenerator[str]:
        """A server on what was kept, where nobody who is at work here finds it."""
        chosen = ports.choose(dict.fromkeys(("nats", "monitor")), self.aside / "ports.json")
        server = nats_server(
            self.aside, port=chosen["nats"], monitor_port=chosen["monitor"], owned=True
        )
        await asyncio.to_thread(server.start)
        try:
            yield f"nats://127.0.0.1:{chosen['nats']}"
        finally:
            await asyncio.to_thread(server.stop)


@pytest.mark.timeout(120)
async def test_a_log_that_was_rolled_back_under_a_running_projector_stops_it(
    own_nats: OwnNats, stream: str, subjects: Subjects, database: str, tmp_path: Path
) -> None:
    back = RolledBack(own_nats, tmp_path)
    async with world(own_nats.url, stream, subjects, database) as here:
        projector = here.projector()
        async with projector.running():
            await here.reached(await here.say("g1", REQUESTED))
            await back.keep(here)
            await here.reached(await here.say("g1", STARTED, SUBMITTED))
            before = await here.rows()
            await back.stop(here)
            await back.put_back()
            await until_state(projector, ProjectorState.REFUSING)
            # `velro up` waits no longer where /readyz says this.
            assert str((await projector.health()).problem).startswith("refusing: ")
            assert "ends at position 1" in str(await projector.other_log())
        assert await here.rows() == before


@pytest.mark.timeout(120)
async def test_a_log_rolled_back_and_grown_past_the_checkpoint_is_not_read_on(
    own_nats: OwnNats, stream: str, subjects: Subjects, database: str, tmp_path: Path
) -> None:
    """The same stream by name and birth, and long enough: only its last event read tells."""
    back = RolledBack(own_nats, tmp_path)
    async with world(own_nats.url, stream, subjects, database) as here:
        projector = here.projector()
        source = here.log.read(after=0)
        async with projector.running(), aclosing(source):
            await here.reached(await here.say("g1", REQUESTED))
            assert (await anext(source))[-1].position == 1
            await back.keep(here)
            await here.reached(await here.say("g1", STARTED, SUBMITTED))
            while (await anext(source))[-1].position < 3:
                pass
            before = await here.rows()
            await back.stop(here)
            async with (
                back.elsewhere() as other_url,
                world(other_url, stream, subjects, database) as fork,
            ):
                await fork.say("g2", REQUESTED, STARTED, SUBMITTED, completed("link"))
            await back.put_back()
            with pytest.raises(LogMismatch, match="another event at position 3"):
                await anext(source)
            await until_state(projector, ProjectorState.REFUSING)
        assert await here.rows() == before
        again = here.projector()
        async with again.running():
            await until_state(again, ProjectorState.REFUSING)
        assert await here.rows() == before


async def test_a_log_whose_beginning_was_purged_is_not_projected_from_nothing(
    here: World,
) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED, STARTED))
        await ask(here.nats, f"$JS.API.STREAM.PURGE.{here.stream}", None, timeout_s=5)
        # What comes next follows what was projected: nothing is mixed.
        await here.reached(await here.say("g1", SUBMITTED))
    assert set(await here.rows()) == {"g1"}
    await ask(here.nats, f"$JS.API.STREAM.PURGE.{here.stream}", None, timeout_s=5)
    projector = here.projector()
    async with projector.running():
        await until_state(projector, ProjectorState.REFUSING)
        assert "no longer in it" in str(await projector.other_log())


async def test_a_deleted_stream_is_waited_for_and_another_in_its_place_refused(
    here: World,
) -> None:
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED))
        await jetstream_of(here.nats).delete_stream(here.stream)
        await until_state(projector, ProjectorState.WAITING)
        await ensure_stream(here.nats, StreamDeclaration(name=here.stream, subjects=here.subjects))
        await here.say("g2", REQUESTED, STARTED)
        await until_state(projector, ProjectorState.REFUSING)
    assert set(await here.rows()) == {"g1"}


async def test_a_projector_that_stands_by_sees_another_log_as_well(here: World) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED))
    # Somebody else holds the lock, and is too busy to look at the log.
    holder = await here.connection()
    assert await QUERIES.value(holder, "try_activate", schema_name=NAME)
    standing = here.projector()
    async with standing.running():
        await until_state(standing, ProjectorState.STANDING_BY)
        assert await standing.other_log() is None
        await made_anew(here)
        await here.say("g2", REQUESTED)
        await until_state(standing, ProjectorState.REFUSING)
    await holder.close()
    assert set(await here.rows()) == {"g1"}


async def test_on_another_log_nothing_is_accepted_nor_decided(here: World) -> None:
    async with here.projector().running():
        await here.reached(await here.say("g1", REQUESTED))
    await made_anew(here)
    projector = here.projector()
    log = RecognisedLog(here.log, projector.other_log)
    # From the first moment on: what is asked while the projector starts waits for its look.
    async with projector.running(), HttpService(log=log).client() as client:
        answer = await client.post("/v1/generations", json=BODY)
        assert answer.status_code == 503
        assert "ends at position 0" in answer.text
        with pytest.raises(LogUnavailable, match="until a person has looked"):
            await log.load("generation", "g1")
    assert await here.log.last_position() == 0


async def test_the_right_log_in_its_place_is_worked_on_again(here: World) -> None:
    projector = here.projector()
    async with projector.running():
        await here.reached(await here.say("g1", REQUESTED, STARTED))
        async with aclosing(here.log.read(after=0, until=2)) as source:
            kept = [record async for records in source for record in records]
        await made_anew(here)
        await until_state(projector, ProjectorState.REFUSING)
        for record in kept:
            await here.say_bytes(record.subject, record.data)
        await until_state(projector, ProjectorState.PROJECTING)
        assert await projector.other_log() is None
        await here.reached(await here.say("g1", SUBMITTED))
    assert same_as(await here.folded(), await here.rows())


async def test_a_log_is_worked_on_while_postgres_is_away(here: World) -> None:
    away = here.projector()
    away.dsn = "postgresql://nobody@127.0.0.1:1/nothing"
    log = RecognisedLog(here.log, away.other_log)
    async with away.running(), HttpService(log=log).client() as client:
        assert (await client.post("/v1/generations", json=BODY)).status_code == 202
