from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shared.media.spool_file import SpoolFile

PIECE_BYTES = 64 * 1024
WITHIN_S = 5.0


async def turns() -> None:
    """Let tasks come as far as they can without a thread."""
    for _ in range(20):
        await asyncio.sleep(0)


async def append_all(file: SpoolFile, pieces: list[bytes]) -> list[bytearray]:
    """Fill the memory that is given back with one piece after the other; all that was used."""
    memory = bytearray(PIECE_BYTES)
    used = [memory]
    for piece in pieces:
        memory[: len(piece)] = piece
        memory = await file.append(memory, len(piece))
        if not any(memory is other for other in used):
            used.append(memory)
    return used


async def test_pieces_are_in_the_file_in_their_order(tmp_path: Path) -> None:
    pieces = [bytes([number]) * (number + 1) * 100 for number in range(200)]
    file = SpoolFile(tmp_path / "film", anew=True)
    used = await append_all(file, pieces)
    await file.close()
    assert (tmp_path / "film").read_bytes() == b"".join(pieces)
    assert len(used) <= 4


async def test_a_file_is_gone_on_with_or_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "film"
    for anew, found in ((True, b"one"), (False, b"oneone"), (True, b"one")):
        file = SpoolFile(path, anew=anew)
        await append_all(file, [b"one"])
        await file.close()
        assert path.read_bytes() == found


async def test_what_comes_faster_than_it_is_written_waits(tmp_path: Path) -> None:
    # Whoever opens it waits for a reader.
    os.mkfifo(tmp_path / "slow")
    file = SpoolFile(tmp_path / "slow", anew=True)
    pieces = [bytes([number]) * PIECE_BYTES for number in range(8)]
    appending = asyncio.create_task(append_all(file, pieces))
    await turns()
    assert not appending.done()
    with (tmp_path / "slow").open("rb") as reader:
        read = asyncio.create_task(asyncio.to_thread(reader.read))
        used = await asyncio.wait_for(appending, WITHIN_S)
        await file.close()
        assert await asyncio.wait_for(read, WITHIN_S) == b"".join(pieces)
    assert len(used) == 4


async def test_nothing_is_written_after_it_was_closed_even_where_that_is_cancelled(
    tmp_path: Path,
) -> None:
    os.mkfifo(tmp_path / "slow")
    file = SpoolFile(tmp_path / "slow", anew=True)
    await append_all(file, [b"one", b"two"])
    closing = asyncio.create_task(file.close())
    await turns()
    closing.cancel()
    await turns()
    assert not closing.done()
    assert await asyncio.to_thread((tmp_path / "slow").read_bytes) == b"onetwo"
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(closing, WITHIN_S)


async def test_a_disk_that_is_full_fails_the_next_piece_or_the_end() -> None:
    file = SpoolFile(Path("/dev/full"), anew=True)
    with pytest.raises(OSError, match="No space"):
        await append_all(file, [b"one"] * 8)
    with pytest.raises(OSError, match="No space"):
        await file.close()
