"""How much memory copying takes: measured in a process of its own, against real servers."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from tests.hosts.hostile import hostile_host, pours

if TYPE_CHECKING:
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address

MIB = 1024 * 1024
PNG = b"\x89PNG\r\n\x1a\n"
MP4 = b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isommp41"


async def copied(
    bucket: S3Address, spool: Path, start: bytes, *, files: int, size_bytes: int
) -> float:
    """Copy so many files at once; the most memory that it took, in MiB."""
    async with hostile_host() as host:
        urls = [
            host.does(pours(start + bytes((number,)), size_bytes=size_bytes), path=f"/{number}")
            for number in range(files)
        ]
        told = {
            "urls": urls,
            "s3": asdict(bucket),
            "media": {"media_http_hosts": [host.host], "spool_dir": str(spool)},
        }
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.hosts.copying_child",
            json.dumps(told),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            said, _ = await child.communicate()
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
    assert child.returncode == 0
    answer = json.loads(said.splitlines()[-1])
    assert answer["sizes"] == [size_bytes] * files
    return float(answer["most_mib"])


async def test_sixty_four_pictures_at_once_take_little_memory(
    bucket: S3Address, tmp_path: Path
) -> None:
    assert await copied(bucket, tmp_path, PNG, files=64, size_bytes=MIB) < 250


@pytest.mark.timeout(180)
async def test_a_long_film_takes_no_more_than_a_short_one(
    bucket: S3Address, tmp_path: Path
) -> None:
    assert await copied(bucket, tmp_path, MP4, files=1, size_bytes=512 * MIB) < 150
