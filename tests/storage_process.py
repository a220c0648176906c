"""The storage service as a process of its own, and the wires to it that a test can hold."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address

DEADLINE_S = 45.0


def environment(
    *,
    nats_url: str,
    subject_root: str,
    stream: str,
    database: str,
    bucket: S3Address,
    media_host: str,
    spool: Path,
    **more: str,
) -> dict[str, str]:
    """What the service is started with, and nothing else of this process's environment."""
    return {
        "PATH": os.environ["PATH"],
        "VELRO_NATS_URL": nats_url,
        "VELRO_STREAM": stream,
        "VELRO_SUBJECT_ROOT": subject_root,
        "VELRO_STORAGE_POSTGRES_DSN": database,
        "VELRO_STORAGE_PORT": "0",
        # The shortest: what a killed process held is free again while a test waits.
        "VELRO_STORAGE_LEASE_S": "3",
        "VELRO_S3_ENDPOINT_URL": bucket.endpoint_url,
        "VELRO_S3_ACCESS_KEY": bucket.access_key,
        "VELRO_S3_SECRET_KEY": bucket.secret_key,
        "VELRO_S3_BUCKET": bucket.bucket,
        "VELRO_MEDIA_HTTP_HOSTS": media_host,
        "VELRO_SPOOL_DIR": str(spool),
        **more,
    }


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


@dataclass
class StorageProcess:
    """`python -m storage_svc …`, which is killed when its test ends before it does."""

    process: asyncio.subprocess.Process

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> Ended:
        self.process.terminate()
        return await self.ended()

    async def ended(self) -> Ended:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return Ended(self.process.returncode, (out or b"").decode(), (err or b"").decode())


@asynccontextmanager
async def storage_process(
    env: dict[str, str], *arguments: str, quiet: bool = False
) -> AsyncGenerator[StorageProcess]:
    """Start it; with `quiet` what it prints is shown only when the test fails."""
    pipe = None if quiet else asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "storage_svc", *arguments, env=env, stdout=pipe, stderr=pipe
    )
    running = StorageProcess(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            await running.kill()
        transport = process._transport  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType, reportUnknownMemberType] - its pipes are closed now, not whenever the collector runs
        transport.close()  # pyright: ignore[reportUnknownMemberType] - the same


async def run(env: dict[str, str], *arguments: str) -> Ended:
    """Run it to its end."""
    async with storage_process(env, *arguments) as process:
        return await process.ended()


@dataclass
class Wire:
    """A TCP proxy on loopback that forwards all it gets, until it sees what it is to hold.

    Attributes:
        hold_requests: bytes that are not forwarded, nor anything after them.
        hold_answers: bytes after which nothing comes back.
        hold_after: bytes that a request has to hold before anything is held.
        caught: one of these was seen.
    """

    target_port: int
    port: int = 0
    hold_requests: bytes | None = None
    hold_answers: bytes | None = None
    hold_after: bytes | None = None
    caught: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set["asyncio.Task[None]"])

    async def wait_caught(self) -> None:
        await asyncio.wait_for(self.caught.wait(), DEADLINE_S)

    async def cut(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _seen(self, window: bytes) -> tuple[bytes, bytes | None]:
        """What of a connection's last bytes still counts, and what of ours is in them."""
        if self.hold_after is not None:
            if self.hold_after in window:
                self.hold_after = None
            return window[-3:], None
        wanted = (self.hold_requests, self.hold_answers)
        return window, next((each for each in wanted if each and each in window), None)

    async def connected(self, client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        # Closed however this ends: asyncio of Python 3.11 leaves it open where this is cancelled.
        with closing(back):
            server, out = await asyncio.open_connection("127.0.0.1", self.target_port)
            with closing(out):
                await self._carried(client, back, server, out)

    async def _carried(
        self,
        client: asyncio.StreamReader,
        back: asyncio.StreamWriter,
        server: asyncio.StreamReader,
        out: asyncio.StreamWriter,
    ) -> None:
        silent = asyncio.Event()

        async def requests() -> None:
            window = b""
            while data := await client.read(65536):
                window, found = self._seen((window + data)[-200_000:])
                if found is not None:
                    self.caught.set()
                    if found == self.hold_requests:
                        await asyncio.Event().wait()
                    silent.set()
                out.write(data)
                await out.drain()
            out.close()

        async def answers() -> None:
            while data := await server.read(65536):
                if silent.is_set():
                    continue
                back.write(data)
                await back.drain()
            back.close()

        tasks = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        self._tasks.update(tasks)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.difference_update(tasks)


@asynccontextmanager
async def wire(
    target_port: int,
    *,
    hold_requests: bytes | None = None,
    hold_answers: bytes | None = None,
    hold_after: bytes | None = None,
) -> AsyncGenerator[Wire]:
    """A wire to a port of this machine."""
    proxy = Wire(
        target_port,
        hold_requests=hold_requests,
        hold_answers=hold_answers,
        hold_after=hold_after,
    )
    server = await asyncio.start_server(proxy.connected, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.cut()
