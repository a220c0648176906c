from __future__ import annotations

import asyncio
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from shared.object_store.file_part import SpentFile

if TYPE_CHECKING:
    from pathlib import Path

BODY = b"aaabbbcccd"


def spent_file(path: Path) -> SpentFile:
    path.write_bytes(BODY)
    return SpentFile(path, parts=4, part_bytes=3)


async def test_no_part_is_cut_off_before_those_behind_it_were_sent(tmp_path: Path) -> None:
    spent = spent_file(tmp_path / "film")
    left: list[bytes] = []
    for number in (3, 4, 1, 2):
        await spent.sent(number)
        left.append((tmp_path / "film").read_bytes())
    assert left == [BODY, b"aaabbb", b"aaabbb", b""]


@pytest.mark.parametrize("order", list(permutations((1, 2, 3, 4))))
async def test_parts_that_were_sent_at_once_leave_nothing(
    tmp_path: Path, order: tuple[int, ...]
) -> None:
    spent = spent_file(tmp_path / "film")
    await asyncio.gather(*(spent.sent(number) for number in order))
    assert (tmp_path / "film").read_bytes() == b""


async def test_a_file_that_is_gone_already_is_no_failure(tmp_path: Path) -> None:
    spent = spent_file(tmp_path / "film")
    (tmp_path / "film").unlink()
    await spent.sent(4)
    assert not (tmp_path / "film").exists()
