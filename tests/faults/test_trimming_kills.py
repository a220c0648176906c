"""Trimming as a process, killed and interrupted at each of its steps, and begun again."""

from __future__ import annotations

import signal
from contextlib import aclosing
from itertools import product
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.storage_process import environment, run, storage_process, wire
from tests.storage_scene import port_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.archives import Archived
    from velro.stack.seaweedfs import S3Address

TRIM = ("trim", "--days", "0")
INTERRUPTED = 130


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
    )


async def everything_is_there(archived: Archived, *, until: int) -> None:
    log = archived.whole_log
    async with aclosing(log.read(after=0, until=until)) as source:
        read = [record.position async for batch in source for record in batch]
    assert read == list(range(1, until + 1))
    for number in range(1, until + 1):
        history = await log.load("generation", f"g{number}")
        assert [event.position for event in history.events] == [number]


# What every program waits once after the index was made is most of its time.
@pytest.mark.timeout(180)
async def test_a_trimming_that_is_cut_off_anywhere_loses_nothing_and_is_gone_on_with(
    archived: Archived, env: dict[str, str], subject_root: str, nats_url: str
) -> None:
    steps = [
        f"HPUB {subject_root}.trimmed.g",
        f"HPUB {subject_root}.trimmed-through",
        f"$JS.API.STREAM.PURGE.{archived.stream}",
    ]
    await archived.fill(1, 5)
    await archived.catch_up()
    assert (await run(env, *TRIM)).code == 0
    end = 5
    async with wire(urlsplit(nats_url).port or 4222) as nats:
        through = env | {"VELRO_NATS_URL": f"nats://127.0.0.1:{nats.port}"}
        for step, after in product(steps, (False, True)):
            await archived.fill(end + 1, end + 5)
            end += 5
            await archived.catch_up()
            held = step.encode()
            nats.caught.clear()
            nats.hold_requests, nats.hold_answers = (None, held) if after else (held, None)
            async with storage_process(through, *TRIM, quiet=True) as process:
                await nats.wait_caught()
                await process.kill()
            await everything_is_there(archived, until=end)
            ended = await run(env, *TRIM)
            assert ended.code == 0, ended.err
            assert await archived.log.first_position() == end
            await everything_is_there(archived, until=end)


async def test_a_trimming_that_is_interrupted_ends_at_once_and_changes_nothing(
    archived: Archived, env: dict[str, str], bucket: S3Address
) -> None:
    await archived.fill(1, 5)
    await archived.catch_up()
    async with wire(port_of(bucket.endpoint_url)) as s3:
        s3.hold_requests = b"/segments/"
        through = env | {"VELRO_S3_ENDPOINT_URL": f"http://127.0.0.1:{s3.port}"}
        async with storage_process(through, *TRIM) as process:
            await s3.wait_caught()
            process.process.send_signal(signal.SIGINT)
            ended = await process.ended()
    assert ended.code == INTERRUPTED
    assert "Traceback" not in ended.err
    assert await archived.log.first_position() == 1
    await everything_is_there(archived, until=5)
