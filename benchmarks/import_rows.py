"""`storage-svc import` of 100,000 rows of CSV, from start to end, fsync on; and once more.

Beside it what the log takes of the same events when nothing is read, checked or planned.
"""

from __future__ import annotations

import asyncio
import csv
import os
import sys
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from time import perf_counter
from typing import TYPE_CHECKING, Final

from benchmarks.figures import Figure, middle
from benchmarks.nats import nats_with_log
from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output
from shared.contracts.generation_events import GenerationCompleted
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.event_log.port import Addition

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

_ROWS: Final = 100_000
_DEADLINE_S: Final = 300


async def measure(room: Path) -> list[Figure]:
    """Rows a second."""
    file = room / "rows.csv"
    made = datetime.now(UTC) - timedelta(hours=1)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("id", "user", "created_at", "output_urls", "fal_urls_temporary"))
        for number in range(_ROWS):
            writer.writerow((f"row-{number}", f"user-{number % 997}", made, _url(number), "true"))
    async with nats_with_log(room) as connection:
        log = JetStreamLog(connection, Subjects())
        alone = await _appended(log, made)
        url = connection.connected_url
        assert url is not None, "it is connected"
        first = await _imported(file, url.netloc)
        again = await _imported(file, url.netloc)
        written = await log.last_position()
    if written != 2 * _ROWS:
        raise AssertionError(f"{written} events are in the log, of {2 * _ROWS}")
    beside = {"append_all of the same events, already made": middle([alone])}
    return [
        Figure("import_rows", "rows/s", middle([first]), beside),
        Figure("import_rows, a repeat", "rows/s", middle([again]), {}),
    ]


def _url(number: int) -> str:
    return f"https://v3.fal.media/files/zebra/{number:032x}.png"


async def _imported(file: Path, server: str) -> float:
    begin = perf_counter()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "storage_svc",
        "import",
        str(file),
        env={"PATH": os.environ["PATH"], "VELRO_NATS_URL": f"nats://{server}"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(_DEADLINE_S):
        if await process.wait():
            raise AssertionError(f"the import ended with {process.returncode}")
    return _ROWS / (perf_counter() - begin)


async def _appended(log: JetStreamLog, made: datetime) -> float:
    additions = [_addition(number, made) for number in range(_ROWS)]

    async def source() -> AsyncGenerator[Addition, None]:
        for addition in additions:
            yield addition

    begin = perf_counter()
    async with aclosing(log.append_all(source())) as steps:
        async for _ in steps:
            pass
    return _ROWS / (perf_counter() - begin)


def _addition(number: int, made: datetime) -> Addition:
    completed = GenerationCompleted(
        user_id=f"user-{number % 997}",
        provider="fal",
        model="imported",
        outputs=(Output(index=0, source_url=_url(number), expires_at=made + timedelta(days=7)),),
    )
    generation_id = f"alone-{number}"
    context = Context(source="velro/benchmarks")
    sealed = seal(completed, generation_id=generation_id, at=made, context=context)
    return Addition("generation", generation_id, (sealed,))
