"""The projector: one process at a time keeps a read model as the log says, for as long as it runs.

It writes over the very connection that holds the advisory lock, so a projector whose lock is lost
cannot write any more; the compare-and-set of the checkpoint would stop it a second time.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Generic, TypeVar
from uuid import UUID, uuid4

import asyncpg
import structlog

from shared.errors import VelroError, in_words
from shared.event_log.port import LogMismatch, LogUnavailable
from shared.postgres.connecting import POSTGRES_AWAY, close, connect
from shared.projection.applying import Applier, Poison
from shared.projection.attempts import Attempts
from shared.projection.errors import SchemaOutdated, Superseded
from shared.projection.looking_again import looking_again
from shared.projection.reading import reading_ahead
from shared.projection.rebuild_schemas import sweeping
from shared.projection.standing import ProjectorHealth, ProjectorState, ProjectorTiming
from shared.projection.tables import QUERIES, ensure, read_checkpoint, recognise

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from asyncpg import Connection, Record

    from shared.event_log.port import EventLog
    from shared.projection.applying import Parked
    from shared.projection.batch import Batch, Decoding
    from shared.projection.port import ReadModel
    from shared.projection.tables import Checkpoint

__all__ = ["Projector", "ProjectorHealth", "ProjectorState", "ProjectorTiming"]

_log = structlog.get_logger(__name__)

Row = TypeVar("Row")

# Tries to become the active one, for each look at the log of one that stands by.
_TRIES_A_LOOK = 10
# The tables were taken away beneath the projector: `ensure` makes them again.
_TABLES_GONE = (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError)


@dataclass(slots=True)
class _Standing:
    state: ProjectorState = ProjectorState.STARTING
    position: int | None = None
    last_progress_at: datetime | None = None
    parked: int = 0
    reason: str | None = None
    # Why the log is not the one that was projected; it stays until that is found to be otherwise.
    other_log: str | None = None
    # Of the events in the tables the last one, as far as this process knows.
    checkpoint: Checkpoint | None = None
    log_was_away: bool = False


@dataclass(slots=True)
class Projector(Generic[Row]):
    """Keeps one read model up to date with the log, or stands by while another process does.

    Attributes:
        schema: where the tables are; the read model's name unless another version is meant.
        whole: sees what else must be so of the log, besides that it has the checkpoint's event.
    """

    dsn: str
    log: EventLog
    model: ReadModel[Row]
    decoding: Decoding
    schema: str = ""
    timing: ProjectorTiming = field(default_factory=ProjectorTiming)
    whole: Callable[[], Awaitable[None]] | None = None
    _standing: _Standing = field(default_factory=_Standing, init=False)
    _stop: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    # Done when there is no point in waiting for more events: told to stop, or the lock is lost.
    _interrupted: asyncio.Future[None] | None = field(default=None, init=False)
    _process: UUID = field(default_factory=uuid4, init=False)
    # Not set while it runs and has neither seen the log nor found out why it cannot.
    _looked: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        self.schema = self.schema or self.model.name
        self._looked.set()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[asyncio.Task[None]]:
        """Project while the context is open; on leaving, finish the batch being written.

        Yields the task, so that its owner notices when it ends early: that is a defect.
        """
        task = asyncio.create_task(self.run(), name=f"projector {self.schema}")
        try:
            yield task
        finally:
            self.stop()
            done, _ = await asyncio.wait((task,), timeout=self.timing.drain_s)
            if not done:
                _log.warning("projector_cut_off", schema=self.schema)
                task.cancel()
                await asyncio.wait((task,))
            if not task.cancelled():
                task.result()

    @property
    def state(self) -> ProjectorState:
        """What it is doing."""
        return self._standing.state

    async def other_log(self) -> str | None:
        """Why the log is not the one whose events are in the tables; None where nothing says so.

        Waits for a projector that is just starting, and not for one that cannot look. Since the
        log was away it may be another one, which the projector sees when it tries the next time;
        whoever is earlier looks for himself.

        Raises:
            LogUnavailable: no answer.
        """
        await self._looked.wait()
        standing = self._standing
        if standing.log_was_away and standing.checkpoint is not None:
            try:
                await recognise(self.log, standing.checkpoint)
            except LogMismatch as error:
                return str(error)
        return standing.other_log

    def stop(self) -> None:
        """Ask `run` to end after the batch that is being written."""
        self._stop.set()
        self._interrupt()

    async def run(self) -> None:
        """Project until `stop`, through every restart of Postgres and of the log."""
        standing = self._standing
        failures = 0
        self._looked.clear()
        try:
            while not self._stop.is_set():
                before = standing.position
                try:
                    await self._session()
                except Superseded as error:
                    _log.info("projector_superseded", schema=self.schema, reason=str(error))
                except LogMismatch as error:
                    standing.other_log = str(error)
                    self._report(ProjectorState.REFUSING, error)
                except SchemaOutdated as error:
                    self._report(ProjectorState.REFUSING, error)
                except (*POSTGRES_AWAY, *_TABLES_GONE, VelroError) as error:
                    standing.log_was_away |= isinstance(error, LogUnavailable)
                    self._report(ProjectorState.WAITING, error)
                failures = 1 if standing.position != before else failures + 1
                await self._pause(failures)
        finally:
            standing.state = ProjectorState.STOPPED
            self._looked.set()

    async def health(self, *, timeout_s: float = 1.0) -> ProjectorHealth:
        """How it does, and how far behind the log's end it is."""
        try:
            async with asyncio.timeout(timeout_s):
                log_end = await self.log.last_position()
        except (VelroError, TimeoutError):
            log_end = None
        standing = self._standing
        return ProjectorHealth(
            state=standing.state,
            position=standing.position,
            log_end=log_end,
            last_progress_at=standing.last_progress_at,
            parked=standing.parked,
            reason=standing.reason,
        )

    async def _session(self) -> None:
        """From one connection to the end of it, or to `stop`."""
        connection = await connect(
            self.dsn, schema=self.schema, application_name=f"velro projector {self.schema}"
        )
        interrupted = self._interrupted = asyncio.get_running_loop().create_future()
        connection.add_termination_listener(lambda _: self._interrupt())
        try:
            if self._stop.is_set():
                return
            if await self._activated(connection, interrupted):
                async with (
                    sweeping(self.dsn, self.schema),
                    looking_again(
                        self.whole, every_s=self.timing.look_again_s, interrupt=self._interrupt
                    ) as found,
                ):
                    await self._project(connection, interrupted)
                if found:
                    raise found[0]
            if not self._stop.is_set():
                raise asyncpg.ConnectionDoesNotExistError("the lock was lost with its connection")
        finally:
            await close(connection)

    async def _recognise(self, checkpoint: Checkpoint) -> None:
        self._standing.checkpoint = checkpoint
        await recognise(self.log, checkpoint)
        if self.whole is not None:
            await self.whole()

    def _tell_parked(self, event: Parked) -> None:
        _log.error(
            "event_parked",
            read_model=self.model.name,
            position=event.position,
            subject=event.subject,
            type=event.event_type,
            reason=event.reason,
        )

    def _interrupt(self) -> None:
        if self._interrupted is not None and not self._interrupted.done():
            self._interrupted.set_result(None)

    async def _activated(
        self, connection: Connection[Record], interrupted: asyncio.Future[None]
    ) -> bool:
        """Stand by until nobody else projects; False where that was interrupted.

        Whoever stands by acts on the log too, so it looks whether it is the right one as well.
        """
        tries = 0
        while not await QUERIES.value(connection, "try_activate", schema_name=self.schema):
            if tries % _TRIES_A_LOOK == 0:
                if await QUERIES.value(connection, "exists_in", schema_name=self.schema):
                    await self._recognise(await read_checkpoint(connection))
                if self._standing.state is not ProjectorState.STANDING_BY:
                    self._enter(ProjectorState.STANDING_BY)
            tries += 1
            pause_s = _jittered(self.timing.standby_interval_s)
            await asyncio.wait((interrupted,), timeout=pause_s)
            if interrupted.done():
                return False
        return not interrupted.done()

    async def _project(
        self, connection: Connection[Record], interrupted: asyncio.Future[None]
    ) -> None:
        checkpoint = await ensure(connection, self.schema, self.model)
        self._standing.position = checkpoint.position
        await self._recognise(checkpoint)
        timing = self.timing
        applier = Applier(
            connection,
            self.schema,
            self.model,
            poison=Poison.PARK,
            fold_limit_s=timing.fold_limit_s,
            on_parked=self._tell_parked,
        )
        await applier.begin()
        self._standing.parked = applier.parked_count
        attempts = Attempts(
            connection, self.model.name, process=self._process, most=timing.attempts
        )
        careful_until = await attempts.begin(checkpoint.position, await self.log.last_position())
        self._enter(ProjectorState.PROJECTING)
        if careful_until > checkpoint.position:
            checkpoint = await self._carefully(applier, attempts, checkpoint, careful_until)
        async with reading_ahead(self.log, self.decoding, after=checkpoint.position) as ahead:
            while (batch := await ahead.next(interrupted)) is not None:
                checkpoint = await self._write(applier, batch, checkpoint)
        if not connection.is_closed():
            await attempts.end()

    async def _carefully(
        self, applier: Applier[Row], attempts: Attempts, checkpoint: Checkpoint, until: int
    ) -> Checkpoint:
        """Apply events one at a time, because a process died over one of them."""
        async with aclosing(self.log.read(after=checkpoint.position, until=until)) as source:
            async for records in source:
                for record in records:
                    if self._stop.is_set():
                        return checkpoint
                    batch = await attempts.batch(record, self.decoding)
                    checkpoint = await self._write(applier, batch, checkpoint)
        await attempts.survived(checkpoint.position)
        return checkpoint

    async def _write(
        self, applier: Applier[Row], batch: Batch, checkpoint: Checkpoint
    ) -> Checkpoint:
        written = await applier.apply(batch, checkpoint)
        standing = self._standing
        standing.position, standing.checkpoint = written.position, written
        standing.parked = applier.parked_count
        standing.last_progress_at = datetime.now(UTC)
        return written

    async def _pause(self, failures: int) -> None:
        timing = self.timing
        longest = min(timing.first_pause_s * 2 ** min(failures - 1, 30), timing.longest_pause_s)
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((stopped,), timeout=_jittered(longest))
        stopped.cancel()

    def _enter(self, state: ProjectorState) -> None:
        self._standing.state = state
        self._standing.reason = None
        self._standing.other_log = None
        self._standing.log_was_away = False
        self._looked.set()
        _log.info(
            "projector", schema=self.schema, state=state.value, position=self._standing.position
        )

    def _report(self, state: ProjectorState, error: Exception) -> None:
        reason = in_words(error)
        if (self._standing.state, self._standing.reason) != (state, reason):
            _log.warning("projector", schema=self.schema, state=state.value, reason=reason)
        self._standing.state = state
        self._standing.reason = reason
        self._looked.set()


def _jittered(pause_s: float) -> float:
    # Replicas that lost the same server do not all come back in the same moment.
    return pause_s * random.uniform(0.5, 1.0)  # noqa: S311 - no secret depends on it
