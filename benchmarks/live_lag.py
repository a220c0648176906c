"""How far behind the log the read models are, in milliseconds, at 1,000 events a second.

From the moment an append is acknowledged to the moment a listener of Postgres hears that its row is
committed: what `at_least` waits for. Writer, both projectors and the listener are processes of
their own; NATS and PostgreSQL sync before they acknowledge. Beside it, over the same events: when a
process that only reads the log has the event, which is the least that a projector could need.
"""

from __future__ import annotations

import asyncio
import json
import sys
from bisect import bisect_left
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import islice
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, middle
from benchmarks.histories import events
from benchmarks.live_lag_parts import READ_ALONE
from benchmarks.nats import nats_with_log
from generation_svc.read_model.model import NAME as GENERATION
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.projection.waiting import PositionWatch
from storage_svc.read_model.model import NAME as STORAGE
from velro.stack import ports
from velro.stack.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Sequence

    from shared.contracts.envelope import Envelope

PER_SECOND: Final = 1000
REPEATS: Final = 3
_RUN_S: Final = 20
# The first second of each run is warming up: prepared statements, and the pace itself.
_WARM_S: Final = 1
_LANES: Final = 64
_CAUGHT_UP_WITHIN_S: Final = 60.0


async def measure(room: Path) -> list[Figure]:
    """Three runs of 20 s; the medians of the quantiles."""
    chosen = ports.choose({"postgres": 25432}, room / "postgres-ports.json")
    server = PostgresServer(room, port=chosen["postgres"], owned=True)
    server.initialise()
    server.process.start()
    try:
        server.ensure_databases()
        dsns = {
            name: server.dsn(f"velro_{name}", role=f"velro_{name}")
            for name in (GENERATION, STORAGE)
        }
        async with nats_with_log(room) as nats:
            url = nats.connected_url.geturl() if nats.connected_url else ""
            log = JetStreamLog(nats, Subjects())
            source = events(PER_SECOND * _RUN_S * REPEATS)
            async with AsyncExitStack() as projecting:
                for name, dsn in dsns.items():
                    await projecting.enter_async_context(_part("project", name, url, dsn))
                runs = [await _run(room, log, url, dsns, source) for _ in range(REPEATS)]
    finally:
        server.process.stop()
    return [
        Figure(
            f"live_lag_{name}_p{percent}",
            "ms",
            middle([_quantile(run[name], percent) for run in runs]),
            {"the event read, nothing written": _of_all(runs, READ_ALONE, percent)},
        )
        for name in (GENERATION, STORAGE)
        for percent in (50, 99)
    ]


async def _run(
    room: Path, log: JetStreamLog, url: str, dsns: dict[str, str], source: Iterator[Envelope]
) -> dict[str, list[float]]:
    """Milliseconds behind, one an event, by who was behind."""
    heard_file = room / "heard.json"
    places = [f"{name}={dsn}" for name, dsn in dsns.items()]
    async with _part("watch", str(heard_file), url, *places):
        acknowledged = await _appended(log, list(islice(source, PER_SECOND * _RUN_S)))
        for name, dsn in dsns.items():
            watch = PositionWatch(dsn, name)
            async with watch.running():
                await watch.wait_for(max(acknowledged), timeout_s=_CAUGHT_UP_WITHIN_S)
    heard: dict[str, list[tuple[float, int]]] = json.loads(heard_file.read_text())
    return {name: _lags(acknowledged, noted) for name, noted in heard.items()}


async def _appended(log: JetStreamLog, envelopes: Sequence[Envelope]) -> dict[int, float]:
    """Append at the pace, each generation in order; when each position was acknowledged."""
    acknowledged: dict[int, float] = {}
    lanes: list[asyncio.Queue[Envelope | None]] = [asyncio.Queue() for _ in range(_LANES)]
    begun = monotonic()

    async def lane(queue: asyncio.Queue[Envelope | None]) -> None:
        while (envelope := await queue.get()) is not None:
            family = getattr(envelope.data, "family")  # noqa: B009 - never an unknown event here
            appended = await log.append(family, envelope.subject, (envelope,), expected=None)
            if (now := monotonic()) - begun > _WARM_S:
                acknowledged[appended.position] = now

    async with asyncio.timeout(4 * _RUN_S), asyncio.TaskGroup() as running:
        for queue in lanes:
            running.create_task(lane(queue))
        for number, envelope in enumerate(envelopes):
            early_s = begun + number / PER_SECOND - monotonic()
            if early_s > 0:
                await asyncio.sleep(early_s)
            lanes[hash(envelope.subject) % _LANES].put_nowait(envelope)
        for queue in lanes:
            queue.put_nowait(None)
    took_s = monotonic() - begun
    if took_s > 1.1 * _RUN_S:
        raise RuntimeError(f"this machine appends {len(envelopes) / took_s:.0f} events/s only")
    return acknowledged


def _lags(acknowledged: dict[int, float], noted: Sequence[tuple[float, int]]) -> list[float]:
    positions = [position for _, position in noted]
    return [
        # A row may be there before its writer has the acknowledgement.
        1000 * max(0.0, noted[bisect_left(positions, position)][0] - at)
        for position, at in acknowledged.items()
    ]


def _of_all(runs: Sequence[dict[str, list[float]]], name: str, percent: int) -> float:
    return middle([_quantile(run[name], percent) for run in runs])


def _quantile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1]


@asynccontextmanager
async def _part(*arguments: str) -> AsyncGenerator[None]:
    """A process of its own while the context is open, once it says that it is ready."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.live_lag_parts", *arguments,
        cwd=Path(__file__).parents[1], stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(20):
            ready = process.stdout and await process.stdout.readline()
        if not ready:
            raise RuntimeError(f"the process to {arguments[0]} did not start")
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        async with asyncio.timeout(20):
            await process.wait()
