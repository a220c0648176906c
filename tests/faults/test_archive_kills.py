"""Archivers as processes: killed with SIGKILL at each step, and several at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from tests.storage_process import Wire, environment, run, storage_process, wire
from tests.storage_scene import port_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.archives import Archived
    from velro.stack.seaweedfs import S3Address

ONCE = ("archive", "--once")


@pytest.fixture
def env(
    nats_url: str, subject_root: str, stream: str, bucket: S3Address, tmp_path: Path
) -> dict[str, str]:
    return environment(
        nats_url=nats_url,
        subject_root=subject_root,
        stream=stream,
        database="postgresql://nobody@127.0.0.1:1/nothing",
        bucket=bucket,
        media_host="127.0.0.1:1",
        spool=tmp_path,
        VELRO_ARCHIVE_SEGMENT_BYTES="10000",
        TMPDIR=str(tmp_path),
    )


@pytest.mark.parametrize("what", ["segments", "manifest"])
@pytest.mark.parametrize("when", ["before the put", "before its answer"])
async def test_an_archiver_that_was_killed_is_gone_on_from_by_the_next(
    archived: Archived, env: dict[str, str], bucket: S3Address, what: str, when: str
) -> None:
    await archived.fill(1, 60)
    step = f"PUT /{bucket.bucket}/{archived.archive.root}/{what}/".encode()
    async with wire(port_of(bucket.endpoint_url)) as s3:
        if when == "before the put":
            s3.hold_requests = step
        else:
            s3.hold_answers = step
        through = env | {"VELRO_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}"}
        await killed(s3, through)
    assert (await run(env, *ONCE)).code == 0
    assert await archived.whole() == await archived.in_stream()
    written = [entry async for entry in archived.archive.entries()]
    assert len(written) > 2
    # What the killed one put is what the next one would have put, not a second of its kind.
    segments = [key async for key in archived.bucket.keys(f"{archived.archive.root}/segments/")]
    assert sorted(segments) == sorted(entry.key for entry in written)


async def killed(s3: Wire, env: dict[str, str]) -> None:
    async with storage_process(env, *ONCE, quiet=True) as process:
        await s3.wait_caught()
        await process.kill()


async def test_archivers_in_several_processes_at_once_make_one_whole_archive(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 200)
    ended = await asyncio.gather(*(run(env, *ONCE) for _ in range(3)))
    assert [one.code for one in ended] == [0, 0, 0]
    assert (await run(env, *ONCE)).code == 0
    assert await archived.whole() == await archived.in_stream()
