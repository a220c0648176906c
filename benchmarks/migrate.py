"""Media from a local HTTP server into SeaweedFS, against rclone, which only copies.

Velro hashes each file, sees what it is, keeps to the spool, and asks for each object after it was
put; rclone has the same number of transfers and the same two servers.
"""

from __future__ import annotations

import asyncio
import io
import math
import os
import resource
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Final

import aiohttp
import psutil
from PIL import Image

from benchmarks.figures import Figure, middle
from shared.media.copier import media_copier
from shared.media.copying import CopyOrder
from shared.media.settings import MediaSettings
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings
from velro.stack import ports
from velro.stack.nats import answers, program
from velro.stack.process import ManagedProcess
from velro.stack.seaweedfs import SeaweedServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable
    from pathlib import Path

    from shared.media.copying import Copier
    from velro.stack.seaweedfs import S3Address

MIB: Final = 1024 * 1024
_TRANSFERS: Final = 32
_OBJECTS: Final = 2_000
_OBJECT_BYTES: Final = 512 * 1024
_LARGE_BYTES: Final = 1024 * MIB
_ROUNDS: Final = 5


@dataclass(frozen=True, slots=True)
class _Bench:
    copier: Copier
    media_port: int
    s3: S3Address
    room: Path

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.media_port}/{name}"


async def measure(room: Path) -> list[Figure]:
    """Objects a second of 512 KiB, and MiB a second of one file of 1 GiB."""
    media = room / "media"
    media.mkdir()
    names = [f"{number}.png" for number in range(_OBJECTS)]
    body = _picture().ljust(_OBJECT_BYTES - 16, b"\0")
    for number, name in enumerate(names):
        (media / name).write_bytes(body + number.to_bytes(16, "big"))
    with (media / "large.mp4").open("wb") as file:
        file.write(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41")
        piece = os.urandom(MIB)
        for _ in range(_LARGE_BYTES // MIB - 1):
            file.write(piece)
        file.write(bytes(MIB - 24))
    async with _bench(room, media) as bench:
        await _read_once(bench, [*names, "large.mp4"])
        small = await _compare(bench, names, of=_OBJECTS)
        large = await _compare(bench, ["large.mp4"], of=_LARGE_BYTES // MIB)
    return [
        *_figures("migrate_small", ("objects/s", "ms/object"), _OBJECTS, *small),
        *_figures("migrate_large", ("MiB/s", "ms/MiB"), _LARGE_BYTES // MIB, *large),
    ]


def _picture() -> bytes:
    """A PNG of noise, of nearly as many bytes as an object has."""
    side = math.isqrt((_OBJECT_BYTES - 4096) // 3)
    written = io.BytesIO()
    Image.frombytes("RGB", (side, side), os.urandom(3 * side * side)).save(written, "PNG")
    return written.getvalue()


async def _read_once(bench: _Bench, names: list[str]) -> None:
    """Have the source send all of it: the first time costs it twice as much, whoever asks."""
    async with aiohttp.ClientSession() as session:
        for name in names:
            async with session.get(bench.url(name)) as answer:
                answer.raise_for_status()
                async for _ in answer.content.iter_any():
                    pass


@dataclass(frozen=True, slots=True)
class _Spent:
    """Seconds: of the clock, of the copier's processors and of the two servers' processors."""

    clock: float
    client: float
    servers: float


async def _compare(
    bench: _Bench, names: list[str], *, of: int
) -> tuple[list[_Spent], list[_Spent]]:
    """What ours and rclone's copies cost, the two taking turns at going first."""
    ours: list[_Spent] = []
    theirs: list[_Spent] = []
    for number in range(_ROUNDS):
        us = _spending(_copied(bench, names, f"{of}-{number}"))
        them = _spending(_copied_by_rclone(bench, names, f"rclone/{of}/{number}"))
        if number % 2:
            theirs.append(await them)
            ours.append(await us)
        else:
            ours.append(await us)
            theirs.append(await them)
    return ours, theirs


def _figures(
    name: str, units: tuple[str, str], of: int, ours: list[_Spent], theirs: list[_Spent]
) -> list[Figure]:
    """How much a second; and what each costs the processors, whatever else the machine does."""

    def costs(spent: list[float]) -> float:
        return round(1000 * median(spent) / of, 2)

    rclone = f"rclone copyurl --urls --transfers {_TRANSFERS}"
    beside = {rclone: middle([of / spent.clock for spent in theirs])}
    parts = {
        rclone: costs([spent.client for spent in theirs]),
        "both servers, for Velro": costs([spent.servers for spent in ours]),
        "both servers, for rclone": costs([spent.servers for spent in theirs]),
    }
    return [
        Figure(name, units[0], middle([of / spent.clock for spent in ours]), beside),
        Figure(f"{name}_cpu", units[1], costs([spent.client for spent in ours]), parts),
    ]


async def _spending(copying: Awaitable[float]) -> _Spent:
    before, servers_before = _processors(), _servers()
    clock = await copying
    return _Spent(clock, _processors() - before, _servers() - servers_before)


def _processors() -> float:
    """Of this process and of the programs that it has waited for."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return process_time() + ended.ru_utime + ended.ru_stime


def _servers() -> float:
    running = (child.cpu_times() for child in psutil.Process().children(recursive=True))
    return sum(times.user + times.system for times in running)


async def _copied(bench: _Bench, names: list[str], generation: str) -> float:
    """Seconds."""
    dies_at = datetime.now(UTC) + timedelta(hours=1)
    orders = iter(
        [
            CopyOrder(
                f"{generation}-{name.partition('.')[0]}",
                0,
                "u",
                "sandbox",
                bench.url(name),
                None,
                dies_at,
            )
            for name in names
        ]
    )

    async def work() -> None:
        for order in orders:
            await bench.copier.copy(order)

    begin = perf_counter()
    async with asyncio.TaskGroup() as workers:
        for _ in range(_TRANSFERS):
            workers.create_task(work())
    return perf_counter() - begin


async def _copied_by_rclone(bench: _Bench, names: list[str], folder: str) -> float:
    """Seconds, the start of the program among them: it takes a few hundredths."""
    listed = bench.room / "urls.csv"
    listed.write_text(
        "".join(
            # A folder an object, as Velro's keys have it: SeaweedFS makes each, at a cost.
            f"{bench.url(name)},u/{folder}-{name.partition('.')[0]}/{name}\n"
            for name in names
        )
    )
    remote = {
        "RCLONE_CONFIG_BENCH_TYPE": "s3",
        "RCLONE_CONFIG_BENCH_PROVIDER": "SeaweedFS",
        "RCLONE_CONFIG_BENCH_ENDPOINT": bench.s3.endpoint_url,
        "RCLONE_CONFIG_BENCH_ACCESS_KEY_ID": bench.s3.access_key,
        "RCLONE_CONFIG_BENCH_SECRET_ACCESS_KEY": bench.s3.secret_key,
    }
    begin = perf_counter()
    rclone = await asyncio.create_subprocess_exec(
        program("rclone"),
        "copyurl",
        "--urls",
        str(listed),
        f"bench:{bench.s3.bucket}",
        f"--transfers={_TRANSFERS}",
        f"--config={os.devnull}",
        env=dict(os.environ) | remote,
    )
    if await rclone.wait():
        raise AssertionError("rclone failed")
    return perf_counter() - begin


@asynccontextmanager
async def _bench(room: Path, media: Path) -> AsyncGenerator[_Bench]:
    wished = ("s3", "master", "volume", "filer", "admin", "media")
    chosen = ports.choose(dict.fromkeys(wished), room / "ports.json")
    seaweed = SeaweedServer(
        room,
        s3_port=chosen["s3"],
        master_port=chosen["master"],
        volume_port=chosen["volume"],
        filer_port=chosen["filer"],
        admin_port=chosen["admin"],
        owned=True,
    )
    source = _media_process(room, media, chosen["media"])
    seaweed.process.start()
    try:
        source.start()
        s3 = S3Settings.model_validate(asdict(seaweed.address))
        settings = MediaSettings(
            media_http_hosts=(f"127.0.0.1:{chosen['media']}",), spool_dir=room / "spool"
        )
        async with s3_object_store(s3) as store, media_copier(settings, store) as copier:
            await store.learn()
            yield _Bench(copier, chosen["media"], seaweed.address, room)
    finally:
        source.kill()
        seaweed.process.kill()


def _media_process(room: Path, media: Path, port: int) -> ManagedProcess:
    """A static file server that is fast and knows ranges: rclone's own."""
    return ManagedProcess(
        name="media-server",
        argv=[
            program("rclone"),
            "serve",
            "http",
            f"--addr=127.0.0.1:{port}",
            f"--config={os.devnull}",
            str(media),
        ],
        directory=room,
        ready=lambda: answers(f"http://127.0.0.1:{port}/0.png"),
    )
