"""`velro verify` on a log, two read models and a bucket that agree.

An aggregate is one subject of the log: a generation has one or two. What bounds it is shown beside
it: reading and decoding the log in one process, and listing the bucket, which is SeaweedFS' own
work on the same two cores.
"""

from __future__ import annotations

import asyncio
import os
import resource
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final

import aiohttp

from benchmarks.figures import Figure, middle
from benchmarks.filling import fill
from benchmarks.histories import events as histories
from benchmarks.nats import nats_with_log
from generation_svc.read_model.model import GenerationModel
from shared.contracts.generation_events import GenerationCompleted
from shared.contracts.storage_events import MediaStored
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings
from shared.projection.batch import Decoding
from shared.projection.rebuild import replay
from shared.settings import LogSettings
from storage_svc.read_model.model import BacklogModel
from velro.replaying import log_of
from velro.stack import ports
from velro.stack.postgres import PostgresServer
from velro.stack.seaweedfs import SeaweedServer
from velro.verify.verifying import Places, Wanted, verify

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import StoredObject
    from velro.verify.progress import Progress
    from velro.verify.report import Report

# Some 38,000 generations with 67,000 outputs.
_EVENTS: Final = int(os.environ.get("VELRO_BENCH_VERIFY_EVENTS", "200000"))
_ROUNDS: Final = 3
_PUTS_AT_ONCE: Final = 32
_SUBJECTS: Final = Subjects()
_BODY: Final = b"\x89PNG\r\n\x1a\n"


async def measure(room: Path) -> list[Figure]:
    """Aggregates a second, with the bucket and without, and memory of the largest process."""
    async with agreeing(room, events=_EVENTS, with_bucket=True) as agreed:
        places = agreed.places
        rows: list[float] = []
        three: list[float] = []
        memory = Memory()
        cpu: list[float] = []
        report = await verified(places, memory)
        for _ in range(_ROUNDS):
            before = _cpu_s()
            rows.append((await verified(replace(places, bucket=None), memory)).took_s)
            cpu.append((_cpu_s() - before) / agreed.aggregates * 1_000_000)
            three.append((await verified(places, memory)).took_s)
        read = await _read_and_decoded(places, report)
        listed = await _listed(places)
    aggregates, generations = agreed.aggregates, report.generations
    return [
        Figure(
            "verify_rows",
            "aggregates/s",
            aggregates / middle(rows),
            {
                "generations": round(generations / middle(rows)),
                "the log read and decoded by one process": round(aggregates / read),
            },
        ),
        Figure(
            "verify",
            "aggregates/s",
            aggregates / middle(three),
            {
                "generations": round(generations / middle(three)),
                "the bucket listed, and nothing else": round(aggregates / listed),
            },
        ),
        Figure("verify_rows_cpu", "us/aggregate", middle(cpu), {}),
        Figure("verify_memory", "MiB", memory.largest_mib, {"aggregates": aggregates}),
    ]


async def verified(places: Places, memory: Memory) -> Report:
    """One run, which has to find nothing."""
    report = await verify(places, Wanted(), tell=memory.look)
    if report.exit_code:
        raise AssertionError(f"what was made to agree does not: {report.as_data()}"[:2000])
    return report


async def _read_and_decoded(places: Places, report: Report) -> float:
    begin = perf_counter()
    decoding = Decoding(_SUBJECTS)
    async with log_of(places.log) as log, aclosing(log.read(after=0, until=report.events)) as all_:
        async for records in all_:
            await decoding.batch(records)
    return perf_counter() - begin


async def _listed(places: Places) -> float:
    assert places.bucket is not None
    begin = perf_counter()
    async with s3_object_store(places.bucket) as store:
        async for _ in store.pages():
            pass
    return perf_counter() - begin


def _cpu_s() -> float:
    """What this process and its helpers have used of a core: other work changes it little."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


class Memory:
    """What the largest process holds: this one, or one that helps it."""

    def __init__(self) -> None:
        self.largest_mib = 0.0

    def look(self, _progress: Progress) -> None:
        """Look now; called as a run gets on."""
        for status in Path("/proc").glob("[0-9]*/status"):
            command = status.with_name("cmdline")
            try:
                helps = b"shared.processes" in command.read_bytes()
                if helps or status.parent.name == str(os.getpid()):
                    peak = status.read_text().partition("VmHWM:")[2].split()[0]
                    self.largest_mib = max(self.largest_mib, round(int(peak) / 1024, 1))
            except (OSError, IndexError):
                continue  # it has just ended


@dataclass(frozen=True)
class Agreed:
    """Three that agree, and how many subjects the log has."""

    places: Places
    aggregates: int


@asynccontextmanager
async def agreeing(room: Path, *, events: int, with_bucket: bool) -> AsyncGenerator[Agreed]:
    """The three, on servers of this benchmark's own."""
    postgres_port = ports.choose({"postgres": 25432}, room / "postgres-ports.json")["postgres"]
    server = PostgresServer(room, port=postgres_port, owned=True)
    server.initialise()
    names = ("s3", "master", "volume", "filer", "admin")
    chosen = ports.choose(dict.fromkeys(names), room / "s3-ports.json")
    bucket = SeaweedServer(
        room,
        s3_port=chosen["s3"],
        master_port=chosen["master"],
        volume_port=chosen["volume"],
        filer_port=chosen["filer"],
        admin_port=chosen["admin"],
        owned=True,
    )
    async with AsyncExitStack() as stack:
        for process in (server.process, bucket.process):
            process.start()
            stack.callback(process.stop)
        server.ensure_databases()
        nats = await stack.enter_async_context(nats_with_log(room))
        keys: list[str] = []
        subjects: set[int] = set()
        count = await fill(nats, _small(histories(events), keys, subjects))
        log = JetStreamLog(nats, _SUBJECTS)
        assert await log.last_position() == count
        dsns = [
            server.dsn(f"velro_{name}", role=f"velro_{name}") for name in ("generation", "storage")
        ]
        for dsn, model in zip(dsns, (GenerationModel(), BacklogModel()), strict=True):
            await replay(dsn, log, model, Decoding(_SUBJECTS))
        settings = S3Settings.model_validate(asdict(bucket.address))
        if with_bucket:
            await _put(f"http://127.0.0.1:{chosen['filer']}/buckets/{settings.bucket}", keys)
        assert nats.connected_url is not None
        address = LogSettings(nats_url=nats.connected_url.geturl())
        places = Places(address, dsns, settings if with_bucket else None)
        yield Agreed(places, len(subjects))


def _small(
    envelopes: Iterator[Envelope], keys: list[str], subjects: set[int]
) -> Iterator[Envelope]:
    """The same with objects of a few bytes, whose keys are noted, as are hashes of subjects.

    All is said a year later than it was, after the objects are put, so that none looks as if it had
    been written over.
    """

    def small(stored: StoredObject) -> StoredObject:
        keys.append(stored.key)
        return stored.model_copy(update={"size_bytes": len(_BODY)})

    later = timedelta(days=366)
    for envelope in envelopes:
        event = envelope.data
        subjects.add(hash((event.family, envelope.subject)))
        match event:
            case GenerationCompleted():
                outputs = tuple(
                    output.model_copy(update={"stored": small(output.stored)})
                    if output.stored is not None
                    else output
                    for output in event.outputs
                )
                event = event.model_copy(update={"outputs": outputs})
            case MediaStored():
                event = event.model_copy(update={"object": small(event.object)})
            case _:
                pass
        yield envelope.model_copy(update={"data": event, "time": envelope.time + later})


async def _put(folder: str, keys: list[str]) -> None:
    """Through SeaweedFS' own door, which takes three times as many a second as its S3 one."""
    left = iter(keys)

    async def putting(session: aiohttp.ClientSession) -> None:
        for key in left:
            async with session.put(f"{folder}/{key}", data=_BODY) as answer:
                answer.raise_for_status()

    async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
        for _ in range(_PUTS_AT_ONCE):
            group.create_task(putting(session))
