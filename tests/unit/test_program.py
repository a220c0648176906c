"""What a program does while the servers that it needs are starting."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared import program
from shared.program import when_ready

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncGenerator, Awaitable, Callable


def failing(*errors: Exception) -> Callable[[], Awaitable[None]]:
    left = list(errors)

    async def attempt() -> None:
        if left:
            raise left.pop(0)

    return attempt


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_AGAIN_S", 0.0)


def patience_s(error: Exception) -> float:
    return 60.0 if isinstance(error, OSError) else 0.0


async def test_what_may_pass_is_waited_for_and_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    attempt = failing(OSError("no"), OSError("no"), OSError("not yet"))
    await when_ready(attempt, patience_s=patience_s)
    assert capsys.readouterr().err.splitlines() == [
        "waiting, 60 s at most: OSError: no",
        "waiting, 60 s at most: OSError: not yet",
    ]


async def test_what_does_not_pass_ends_it_at_once() -> None:
    with pytest.raises(ValueError, match="never"):
        await when_ready(failing(OSError("no"), ValueError("never")), patience_s=patience_s)


async def test_patience_ends() -> None:
    attempt = failing(*[OSError("no")] * 1_000_000)
    with pytest.raises(OSError, match="no"):
        await when_ready(attempt, patience_s=lambda _: 0.01)


DRAINING = """
import asyncio, sys
from shared.program import configure_logging, on_signals, run

configure_logging()

async def program():
    stopped = asyncio.Event()
    on_signals(stopped.set)
    print("runs", flush=True)
    await stopped.wait()
    print("drains", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print("drained", flush=True)

run(program())
"""


@asynccontextmanager
async def draining() -> AsyncGenerator[Process]:
    """A program that was asked to stop, and drains until it is written a line."""
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        DRAINING,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        async with asyncio.timeout(30):
            assert await program.stdout.readline() == b"runs\n"
            program.send_signal(signal.SIGTERM)
            assert await program.stdout.readline() == b"drains\n"
            yield program
    finally:
        if program.returncode is None:
            program.kill()
        await program.wait()


async def test_what_drains_is_not_cut_off_by_another_that_asks() -> None:
    async with draining() as program:
        program.send_signal(signal.SIGTERM)
        program.send_signal(signal.SIGTERM)
        out, _ = await program.communicate(b"\n")
        assert (program.returncode, out) == (0, b"drained\n")


async def test_a_person_need_not_wait_for_what_drains() -> None:
    async with draining() as program:
        ended = asyncio.create_task(program.wait())
        while not ended.done():  # two that come at once may count as one
            program.send_signal(signal.SIGINT)
            await asyncio.wait((ended,), timeout=0.2)
        assert program.stdout is not None
        assert await program.stdout.read() == b""


# Whatever is written there finds no space left.
FULL = Path("/dev/full")
WRITING = """
import sys
from shared.program import telling_of_full_disks

with telling_of_full_disks():
    print("word")
    raise SystemExit(0)
"""


async def written_to(place: int) -> tuple[int | None, str]:
    """What a command that writes a word to this ends with, and what it says of that."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WRITING, stdout=place, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    return process.returncode, told.decode()


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has such a device")
async def test_a_disk_without_room_for_the_output_is_told_in_a_sentence() -> None:
    place = os.open(FULL, os.O_WRONLY)
    try:
        code, told = await written_to(place)
    finally:
        os.close(place)
    assert (code, told) == (
        program.EXIT_TRY_LATER,
        "what is to be written finds no room: [Errno 28] No space left on device\n",
    )


async def test_a_reader_who_has_gone_is_told_nothing() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert await written_to(writing) == (1, "")
    finally:
        os.close(writing)


KEEPING_ASIDE = """
import sqlite3
from shared.program import telling_of_full_disks

with telling_of_full_disks():
    connection = sqlite3.connect(":memory:")
    connection.execute("pragma max_page_count = 3")
    connection.execute("create table kept (what)")
    connection.execute("insert into kept values (zeroblob(100000))")
"""


async def test_a_disk_without_room_for_what_is_kept_aside_is_told_with_a_way_out() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KEEPING_ASIDE, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == program.EXIT_TRY_LATER
    assert "database or disk is full; TMPDIR names another place" in told.decode()
    assert "Traceback" not in told.decode()
