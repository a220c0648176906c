"""Rebuilding the generation read model from a million events, beside its limits and its peers."""

from __future__ import annotations

import os
import resource
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from benchmarks.figures import Figure
from benchmarks.histories import events
from benchmarks.nats import nats_with_log
from benchmarks.replay_peers import eventsourcing, faststream, raw_nats_py
from generation_svc.read_model.model import NAME, GenerationModel
from shared.contracts.codec import encode
from shared.contracts.envelope import CONTENT_TYPE, UnknownEvent
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import MAX_BATCH_EVENTS
from shared.postgres.connecting import connect
from shared.processes.cores import processes_worth_having
from shared.projection.batch import Decoding
from shared.projection.collecting import collecting_rarely
from shared.projection.rebuild import Progress, replay
from velro.stack import ports
from velro.stack.postgres import PostgresServer

if TYPE_CHECKING:
    from nats.aio.client import Client

    from shared.event_log.port import EventLog

_EVENTS: Final = 1_000_000
# What is read only to know the limits: more of it says nothing else.
_READ_EVENTS: Final = 200_000
_EARLY: Final = 50_000
_WINDOW: Final = 100_000
_SUBJECTS: Final = Subjects()

PROCESSES: Final = max(2, processes_worth_having())
"""As many as `velro replay` takes by itself, and enough to be called several."""


async def measure(room: Path) -> list[Figure]:
    """Events a second into empty tables, and what the process holds meanwhile."""
    chosen = ports.choose({"postgres": 25432}, room / "postgres-ports.json")
    server = PostgresServer(room, port=chosen["postgres"], owned=True)
    server.initialise()
    server.process.start()
    try:
        server.ensure_databases()
        async with nats_with_log(room) as nats:
            log = JetStreamLog(nats, _SUBJECTS)
            await filled(nats, log, _EVENTS)
            return await _measured(nats, log, server)
    finally:
        server.process.stop()


async def _measured(nats: Client, log: JetStreamLog, server: PostgresServer) -> list[Figure]:
    dsn = server.dsn("velro_generation", role="velro_generation")
    url = nats.connected_url.geturl() if nats.connected_url else ""
    read = await read_and_dropped(log)
    decoded = await _read_and_decoded(log)
    alone = await replayed(dsn, log, _EVENTS, processes=1)
    watched = await replayed(dsn, log, _EVENTS, processes=PROCESSES)
    beside = {
        "by one process": round(alone.events_per_s),
        "raw nats-py, reading alone": await raw_nats_py(url, _READ_EVENTS),
        "the log read and dropped": read,
        "read, decoded and dropped": decoded,
        "COPY of the final rows": await _copied(dsn, events_of_rows=_EVENTS),
        "FastStream, one upsert a message (a sample)": await faststream(url, dsn),
        "eventsourcing, projecting from PostgreSQL (a sample)": await eventsourcing(server),
    }
    return [
        Figure("replay_million", "events/s", round(watched.events_per_s), beside),
        Figure(
            "replay_million_late",
            "us/event",
            watched.us_an_event(_EVENTS - _WINDOW, _EVENTS),
            {
                "around 50,000": watched.us_an_event(0, _WINDOW),
                "by one process": alone.us_an_event(_EVENTS - _WINDOW, _EVENTS),
                "by one process, around 50,000": alone.us_an_event(0, _WINDOW),
            },
        ),
        Figure(
            "replay_million_memory",
            "MiB",
            watched.most_mib,
            {
                "at 50,000": watched.early_mib,
                "by one process": alone.most_mib,
                "by one process, at 50,000": alone.early_mib,
            },
        ),
    ]


@dataclass(slots=True)
class Watched:
    """One rebuild as it went: when which position was reached, what the largest process held."""

    events_per_s: float = 0.0
    early_mib: float = 0.0
    most_mib: float = 0.0
    steps: list[tuple[int, float]] = field(default_factory=list[tuple[int, float]])

    def look(self, progress: Progress) -> None:
        """Note a step."""
        self.steps.append((progress.done, progress.took_s))
        held = _largest_mib()
        self.most_mib = max(self.most_mib, held)
        if progress.done <= _EARLY:
            self.early_mib = held

    def us_an_event(self, after: int, until: int) -> float:
        """How long one took between two positions, on average."""
        (first, began), *_ = [step for step in self.steps if step[0] >= after]
        *_, (last, ended) = [step for step in self.steps if step[0] <= until]
        return round((ended - began) / (last - first) * 1e6, 2)


async def replayed(dsn: str, log: EventLog, count: int, *, processes: int) -> Watched:
    """Rebuild from an empty database to the switch."""
    connection = await connect(dsn, schema=NAME, application_name="benchmark")
    for schema in (NAME, f"{NAME}_previous"):
        await connection.execute(f'drop schema if exists "{schema}" cascade')
    await connection.close()
    watched = Watched()
    rebuilt = await replay(
        dsn,
        log,
        GenerationModel(),
        Decoding(_SUBJECTS),
        on_progress=watched.look,
        processes=processes,
    )
    if rebuilt.position != count:
        raise AssertionError(f"rebuilt to {rebuilt.position}, not to {count}")
    watched.events_per_s = rebuilt.position / rebuilt.took_s
    return watched


def _largest_mib() -> float:
    """What the largest process holds: this one, or one of the parts that it has now."""
    here = Path("/proc/self")
    if not here.exists():
        # Elsewhere the most that this one ever held, which says the same of what only grows.
        return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 1)
    largest = _resident_mib(here)
    for child in (here / "task" / str(os.getpid()) / "children").read_text().split():
        # The servers are children too.
        with suppress(OSError):
            if b"shared.processes" in Path("/proc", child, "cmdline").read_bytes():
                largest = max(largest, _resident_mib(Path("/proc", child)))
    return largest


def _resident_mib(process: Path) -> float:
    pages = int((process / "statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGESIZE") / 2**20, 1)


async def filled(nats: Client, log: JetStreamLog, count: int) -> None:
    """In the order of a busy log: an import would put each aggregate's events together."""
    source = iter(events(count))
    while batch := list(islice(source, MAX_BATCH_EVENTS)):
        batch_id = uuid4().hex
        for place, envelope in enumerate(batch, 1):
            assert not isinstance(envelope.data, UnknownEvent)
            subject = _SUBJECTS.of(envelope.data.family, envelope.subject)
            headers = {
                "content-type": CONTENT_TYPE,
                "Nats-Msg-Id": envelope.id,
                "Nats-Batch-Id": batch_id,
                "Nats-Batch-Sequence": str(place),
            }
            if place < len(batch):
                await nats.publish(subject, encode(envelope), headers=headers)
            else:
                headers["Nats-Batch-Commit"] = "1"
                await nats.request(subject, encode(envelope), timeout=30, headers=headers)
    if await log.last_position() != count:
        raise AssertionError("the log does not hold the events once each")


async def read_and_dropped(log: EventLog) -> float:
    """Events a second, of the first ones, with nothing done to them."""
    begin = perf_counter()
    with collecting_rarely():
        async with aclosing(log.read(after=0, until=_READ_EVENTS)) as batches:
            async for _ in batches:
                pass
    return round(_READ_EVENTS / (perf_counter() - begin))


async def _read_and_decoded(log: EventLog) -> float:
    decoding = Decoding(_SUBJECTS)
    begin = perf_counter()
    with collecting_rarely():
        async with aclosing(log.read(after=0, until=_READ_EVENTS)) as batches:
            async for records in batches:
                await decoding.batch(records)
    return round(_READ_EVENTS / (perf_counter() - begin))


async def _copied(dsn: str, *, events_of_rows: int) -> float:
    """The rows as they are at last, into the same table by COPY, in events that made them."""
    connection = await connect(dsn, schema=NAME, application_name="benchmark")
    try:
        await connection.execute("create table copied (like generations including all)")
        columns = [
            record["attname"]
            for record in await connection.fetch(
                "select attname from pg_attribute where attrelid = 'generations'::regclass"
                " and attnum > 0 and attgenerated = '' order by attnum"
            )
        ]
        taken = 0.0
        async with connection.transaction():
            # Ten thousand at a time: all of them would be what this process holds most.
            rows = await connection.cursor(f"select {', '.join(columns)} from generations")  # noqa: S608 - our own names
            while part := await rows.fetch(10_000):
                records = [tuple(row.values()) for row in part]
                begin = perf_counter()
                await connection.copy_records_to_table("copied", records=records, columns=columns)
                taken += perf_counter() - begin
        await connection.execute("drop table copied")
    finally:
        await connection.close()
    return round(events_of_rows / taken)
