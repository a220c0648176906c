from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from shared.contracts.reasons import ReasonCode
from shared.media.spool import Spool, SpoolFull

if TYPE_CHECKING:
    from pathlib import Path

WITHIN_S = 5.0
CHILD = """
import asyncio, sys
from pathlib import Path
from shared.media.spool import Spool

async def main():
    with Spool(Path(sys.argv[1]), max_bytes=1000) as spool:
        async with spool.room(10, within_s=1) as room:
            room.path.write_bytes(b"0123456789")
            print("ready", flush=True)
            sys.stdin.read()

asyncio.run(main())
"""


def files(directory: Path) -> list[bytes]:
    return [
        path.read_bytes() for path in directory.rglob("*") if path.is_file() and not path.suffix
    ]


def is_empty(directory: Path) -> bool:
    return not list(directory.iterdir())


def child(directory: Path) -> subprocess.Popen[bytes]:
    """A process with a file in the spool, which lives until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate(timeout=10)


async def test_a_file_is_gone_after_its_block(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=1000) as spool:
        async with spool.room(10, within_s=WITHIN_S) as room:
            room.path.write_bytes(b"0123456789")
            assert files(tmp_path) == [b"0123456789"]
        assert files(tmp_path) == []
    assert is_empty(tmp_path)


async def test_a_file_is_gone_after_a_failure(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=1000) as spool:

        async def fail() -> None:
            async with spool.room(10, within_s=WITHIN_S) as room:
                room.path.write_bytes(b"0123456789")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await fail()
        assert files(tmp_path) == []


async def test_a_room_that_nothing_was_written_into_is_given_back(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=10) as spool:
        for _ in range(3):
            async with spool.room(10, within_s=WITHIN_S):
                pass


async def test_others_are_not_let_in_to_see(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    with Spool(directory, max_bytes=10):
        modes = {path.stat().st_mode & 0o077 for path in (directory, *directory.iterdir())}
    assert modes == {0}


async def test_what_a_killed_process_left_is_swept_by_the_next(tmp_path: Path) -> None:
    process = child(tmp_path)
    process.kill()
    end(process)
    assert files(tmp_path) == [b"0123456789"]
    with Spool(tmp_path, max_bytes=1000):
        assert files(tmp_path) == []
    assert is_empty(tmp_path)


async def test_what_a_living_process_has_is_not(tmp_path: Path) -> None:
    process = child(tmp_path)
    try:
        with Spool(tmp_path, max_bytes=1000):
            assert files(tmp_path) == [b"0123456789"]
        assert files(tmp_path) == [b"0123456789"]
    finally:
        end(process)
    assert process.returncode == 0
    assert is_empty(tmp_path)


async def test_what_is_not_of_a_spool_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "velro-notes").mkdir()
    (tmp_path / "velro-notes" / "mine").write_bytes(b"mine")
    with Spool(tmp_path, max_bytes=10):
        pass
    assert files(tmp_path) == [b"mine"]


async def test_two_spools_of_one_process_do_not_see_each_other(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=10) as one:
        async with one.room(10, within_s=WITHIN_S) as room:
            room.path.write_bytes(b"one")
            with Spool(tmp_path, max_bytes=10):
                assert files(tmp_path) == [b"one"]
            assert files(tmp_path) == [b"one"]


async def test_waiting_for_room_ends(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=10) as spool:
        async with spool.room(6, within_s=WITHIN_S):
            with pytest.raises(SpoolFull) as full:
                async with spool.room(6, within_s=0.05):
                    pass
    assert full.value.reason is ReasonCode.INTERNAL
    assert "VELRO_SPOOL_MAX_BYTES" in full.value.detail


async def test_a_file_that_grows_takes_what_is_free(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=100) as spool:
        async with spool.room(10, within_s=WITHIN_S) as room:
            await room.grow(90)
            assert room.size_bytes == 90
            with pytest.raises(SpoolFull):
                async with spool.room(11, within_s=0.05):
                    pass
        async with spool.room(100, within_s=WITHIN_S):
            pass


async def test_growing_waits_for_others_to_end(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=100) as spool:
        async with spool.room(10, within_s=WITHIN_S) as room:
            async with spool.room(60, within_s=WITHIN_S):
                growing = asyncio.create_task(room.grow(80))
                done, _ = await asyncio.wait({growing}, timeout=0.05)
                assert not done
            await growing
            assert room.size_bytes == 80


async def test_of_two_that_wait_for_each_others_bytes_one_gives_way(tmp_path: Path) -> None:
    with Spool(tmp_path, max_bytes=100) as spool:
        async with spool.room(50, within_s=WITHIN_S) as one:
            async with spool.room(50, within_s=WITHIN_S) as two:
                growing = asyncio.create_task(one.grow(100))
                await asyncio.wait({growing}, timeout=0.01)
                with pytest.raises(SpoolFull):
                    await two.grow(60)
            await growing
            assert one.size_bytes == 100
