"""The bucket's keys are changed while the service runs: nothing is lost, nothing restarted."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaStored, MigrationAttemptFailed, MigrationCompleted
from shared.object_store.port import Put, StoreFailed
from shared.object_store.s3 import s3_object_store
from shared.object_store.settings import S3Settings
from tests.object_stores import PNG, RcloneS3, an_order, rclone_with_keys
from tests.storage_process import StorageProcess, storage_process
from tests.storage_scene import Scene, open_scene
from tests.storage_world import DEADLINE_S, now

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from velro.stack.seaweedfs import S3Address

OLD, NEW = ("old-access", "old-secret"), ("new-access", "new-secret")
# More than the failures after which the bucket is left alone.
GENERATIONS = 8


class Files:
    """A pair of keys as mounted secrets."""

    def __init__(self, directory: Path) -> None:
        self.access_key = directory / "access_key"
        self.secret_key = directory / "secret_key"

    def write(self, pair: tuple[str, str]) -> None:
        self.access_key.write_text(f"{pair[0]}\n")
        self.secret_key.write_text(f"{pair[1]}\n")

    def settings_for(self, address: S3Address) -> S3Settings:
        told = asdict(address) | {"access_key": None, "secret_key": None, "timeout_s": 5.0}
        files = {"access_key_file": self.access_key, "secret_key_file": self.secret_key}
        return S3Settings.model_validate(told | files)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    written = Files(tmp_path)
    written.write(OLD)
    return written


@pytest.fixture
def rclone(tmp_path: Path) -> Generator[RcloneS3]:
    with rclone_with_keys(tmp_path, OLD) as server:
        yield server


async def test_keys_changed_in_their_files_are_used_by_the_next_put(
    rclone: RcloneS3, files: Files, tmp_path: Path
) -> None:
    async with s3_object_store(files.settings_for(rclone.address)) as store:
        assert await store.put(an_order(tmp_path, PNG + b"one")) is Put.STORED
        await asyncio.to_thread(rclone.change_keys, NEW)
        for _ in range(2):
            with pytest.raises(StoreFailed) as failed:
                await store.put(an_order(tmp_path, PNG + b"two"))
            assert failed.value.reason is ReasonCode.CREDENTIALS_REFUSED
        files.write(NEW)
        # All that were refused at once are sent once more, and nobody hears of it.
        orders = [an_order(tmp_path, PNG + bytes([number])) for number in range(8)]
        puts = await asyncio.gather(*map(store.put, orders))
        assert set(puts) == {Put.STORED}


@pytest.fixture
async def scene(  # noqa: PLR0917 - pytest hands fixtures over by name
    nats_url: str,
    subject_root: str,
    stream: str,
    database: str,
    rclone: RcloneS3,
    files: Files,
    tmp_path: Path,
) -> AsyncGenerator[Scene]:
    async with open_scene(
        nats_url=nats_url,
        subject_root=subject_root,
        stream=stream,
        database=database,
        bucket=rclone.address,
        spool=tmp_path / "spool",
    ) as opened:
        env = {k: v for k, v in opened.env.items() if not k.endswith(("ACCESS_KEY", "SECRET_KEY"))}
        env["VELRO_S3_ACCESS_KEY_FILE"] = str(files.access_key)
        env["VELRO_S3_SECRET_KEY_FILE"] = str(files.secret_key)
        yield replace(opened, env=env)


async def said_by(process: StorageProcess, event: str) -> dict[str, Any]:
    """Wait until the service says something."""
    assert process.process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        async for line in process.process.stderr:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == event:
                return said
    raise AssertionError(f"it ended before it said {event}")


async def test_keys_that_are_changed_need_no_restart_and_lose_nothing(
    scene: Scene, rclone: RcloneS3, files: Files
) -> None:
    async with storage_process(scene.env, "serve") as process:
        await said_by(process, "bucket_probed")
        await scene.completed("before")
        await scene.world.until_pending(0)

        await asyncio.to_thread(rclone.change_keys, NEW)
        for number in range(GENERATIONS):
            await scene.completed(f"g{number}")

        async def refused() -> bool:
            return "credentials_refused" in (await scene.world.report.summary(now())).reasons

        await scene.world.level()
        await scene.world.until(refused)
        files.write(NEW)
        process.process.send_signal(signal.SIGHUP)
        changed = await said_by(process, "bucket_keys_changed")
        assert "secret" not in json.dumps(changed)
        await scene.world.until_pending(0)
        assert (await process.stop()).code == 0
    failures = 0
    for number in range(GENERATIONS):
        said = await scene.world.said(f"g{number}")
        failed = [event for event in said if isinstance(event, MigrationAttemptFailed)]
        assert {event.reason for event in failed} <= {ReasonCode.CREDENTIALS_REFUSED}
        assert [type(event) for event in said[len(failed) :]] == [MediaStored, MigrationCompleted]
        failures += len(failed)
    assert 1 <= failures < 4 * GENERATIONS, "the bucket was left alone while it refused"
