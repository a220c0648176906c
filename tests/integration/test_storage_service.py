"""The storage service and its commands as processes, on real servers."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaLost, MediaStored, MigrationAttemptFailed
from tests.storage_process import StorageProcess, run, storage_process
from tests.storage_world import DEADLINE_S, now

if TYPE_CHECKING:
    from tests.servers.port import OwnS3
    from tests.storage_scene import Scene

ONCE = ("migrate", "--once", "--batch-size", "50")


async def port_of_service(process: StorageProcess) -> int:
    """What it says when it serves."""
    assert process.process.stderr is not None
    async with asyncio.timeout(DEADLINE_S):
        async for line in process.process.stderr:
            said: dict[str, Any] = json.loads(line)
            if said["event"] == "serving":
                return int(said["port"])
    raise AssertionError("it ended before it served")


async def status_of(port: int, path: str) -> tuple[int, dict[str, Any]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


async def test_the_service_stores_what_completes_while_it_runs(scene: Scene) -> None:
    async with storage_process(scene.env, "serve", quiet=True) as process:
        await scene.completed("before")
        await scene.world.until_pending(0)
        await scene.completed("while", outputs=3)
        await scene.world.level()
        await scene.world.until_pending(0)
        assert (await process.stop()).code == 0
    assert len(await scene.objects()) == 4


async def test_the_service_says_that_it_is_well_and_ready(scene: Scene) -> None:
    async with storage_process(scene.env, "serve") as process:
        port = await port_of_service(process)
        assert await status_of(port, "/healthz") == (200, {"status": "ok"})
        async with asyncio.timeout(DEADLINE_S):
            while (await status_of(port, "/readyz"))[0] != 200:  # noqa: ASYNC110 - as a probe does
                await asyncio.sleep(0.1)


async def test_one_migration_needs_no_service(scene: Scene) -> None:
    for number in (2, 0, 1):
        await scene.completed(f"g{number}", dies_in=timedelta(minutes=10 + number))
    ended = await run({**scene.env, "VELRO_STORAGE_WORKERS": "1"}, *ONCE)
    assert ended.code == 0, ended.err
    assert " ".join(ended.out.split()) == "3 stored, 12.3 kB 0 left"
    assert scene.media.order == ["g0-0.png", "g1-0.png", "g2-0.png"]
    assert len(await scene.objects()) == 3


async def test_one_migration_takes_no_more_than_its_batch(scene: Scene) -> None:
    for number in range(5):
        await scene.completed(f"g{number}", dies_in=timedelta(minutes=10 + number))
    ended = await run(scene.env, "migrate", "--once", "--batch-size", "2", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert (told["batch"]["taken"], told["batch"]["stored"]) == (2, 2)
    assert (told["backlog"]["pending"], told["backlog"]["stored"]) == (3, 2)
    assert sorted(scene.media.order) == ["g0-0.png", "g1-0.png"]


async def test_a_migration_that_lost_something_says_so_and_ends_with_an_error(
    scene: Scene,
) -> None:
    scene.media.answer("gone-0.png", 410)
    await scene.completed("gone", dies_in=timedelta(seconds=-5))
    await scene.completed("there")
    ended = await run(scene.env, *ONCE)
    assert ended.code == 3
    assert "gone output 0: source_expired" in ended.out
    assert [type(event) for event in await scene.world.said("gone")] == [MediaLost]
    assert len(await scene.objects()) == 1


async def test_a_migration_beside_a_service_does_no_work_twice(scene: Scene) -> None:
    for number in range(20):
        await scene.completed(f"g{number}")
    async with storage_process(scene.env, "serve", quiet=True):
        ended = await run(scene.env, *ONCE)
        assert ended.code == 0, ended.err
        await scene.world.until_pending(0)
    assert set(scene.media.requests.values()) == {1}
    assert len(await scene.objects()) == 20


async def test_migrating_continuously_goes_on_until_it_is_told_to_stop(scene: Scene) -> None:
    arguments = ("migrate", "--continuous", "--interval", "1", "--batch-size", "10", "--json")
    async with storage_process(scene.env, *arguments) as process:
        await scene.completed("first")
        await scene.world.until_pending(0)
        await scene.completed("second", outputs=2)
        await scene.world.level()
        await scene.world.until_pending(0)
        ended = await process.stop()
    assert ended.code == 0, ended.err
    batches = [json.loads(line)["batch"]["stored"] for line in ended.out.splitlines()]
    assert sum(batches) == 3


async def test_while_the_bucket_is_down_everything_waits_and_then_is_stored(
    scene: Scene, own_s3: OwnS3
) -> None:
    await asyncio.to_thread(own_s3.server.kill)
    env = {
        **scene.env,
        "VELRO_S3_ENDPOINT_URL": own_s3.address.endpoint_url,
        "VELRO_S3_ACCESS_KEY": own_s3.address.access_key,
        "VELRO_S3_SECRET_KEY": own_s3.address.secret_key,
        "VELRO_S3_BUCKET": own_s3.address.bucket,
    }
    for number in range(12):
        await scene.completed(f"g{number}")
    async with storage_process(env, "serve", quiet=True):
        await scene.world.level()

        async def one_has_failed() -> bool:
            return "bucket_unavailable" in (await scene.world.report.summary(now())).reasons

        await scene.world.until(one_has_failed)
        await asyncio.to_thread(own_s3.server.start)
        await scene.world.until_pending(0)
    failures = 0
    for number in range(12):
        said = await scene.world.said(f"g{number}")
        assert sum(isinstance(event, MediaStored) for event in said) == 1
        failed = [event for event in said if isinstance(event, MigrationAttemptFailed)]
        assert {event.reason for event in failed} <= {ReasonCode.BUCKET_UNAVAILABLE}
        failures += len(failed)
    assert 1 <= failures < 50, "no attempts were burned on a bucket that was known to be down"


async def test_the_backlog_is_shown_by_deadline_and_by_reason(scene: Scene) -> None:
    scene.media.answer("late-0.png", 503)
    await scene.completed("late", dies_in=timedelta(hours=2))
    await scene.completed("soon", dies_in=timedelta(hours=1))
    await run(scene.env, "migrate", "--once", "--batch-size", "2")
    ended = await run(scene.env, "backlog", "--reason", "source_unavailable", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["backlog"]["reasons"] == {"source_unavailable": 1}
    assert [output["ref"]["generation_id"] for output in told["outputs"]] == ["late"]
    table = await run(scene.env, "backlog")
    assert "late" in table.out
    assert "source_unavailable" in table.out


async def test_a_person_may_try_again_what_was_given_up_on(scene: Scene) -> None:
    scene.media.answer("g-0.png", 410)
    await scene.completed("g", dies_in=timedelta(seconds=-5))
    assert (await run(scene.env, *ONCE)).code == 3
    del scene.media.answers["g-0.png"]
    ended = await run(scene.env, "retry", "g")
    assert ended.code == 0, ended.err
    assert "stored" in ended.out
    assert len(await scene.objects()) == 1


async def test_init_makes_what_is_missing(scene: Scene) -> None:
    ended = await run(scene.env, "init")
    assert ended.code == 0, ended.err


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"VELRO_S3_BUCKET": "nobucket"}, "there is no bucket nobucket"),
        ({"VELRO_S3_SECRET_KEY": "wrong"}, "refuses our keys"),
    ],
    ids=["bucket", "key"],
)
async def test_init_ends_soon_where_the_bucket_says_no(
    scene: Scene, wrong: dict[str, str], said: str
) -> None:
    ended = await run(scene.env | wrong, "init")
    assert ended.code == 4, ended.err
    waiting, sentence = ended.err.splitlines()
    assert waiting.startswith("waiting, 10 s at most: ")
    assert said in sentence
    assert "set VELRO_S3_" in sentence


KEYS = {"VELRO_S3_ACCESS_KEY": "key", "VELRO_S3_SECRET_KEY": "secret"}


async def test_a_missing_setting_is_named() -> None:
    ended = await run(KEYS, "serve")
    assert ended.code == 2
    assert ended.err.startswith("VELRO_STORAGE_POSTGRES_DSN: ")


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"VELRO_S3_ACCESS_KEY": "key"},
        {"VELRO_S3_ACCESS_KEY": "key", "VELRO_S3_SECRET_KEY_FILE": "/run/secrets/key"},
        {**KEYS, "VELRO_S3_ACCESS_KEY_FILE": "/run/a", "VELRO_S3_SECRET_KEY_FILE": "/run/b"},
    ],
)
async def test_what_is_no_pair_of_keys_is_said_so(keys: dict[str, str]) -> None:
    dsn = "postgresql://nobody@127.0.0.1:1/none"
    ended = await run({"VELRO_STORAGE_POSTGRES_DSN": dsn, **keys}, "serve")
    assert ended.code == 2
    assert ended.err.startswith("VELRO_S3_*: ")
    assert "VELRO_S3_SECRET_KEY_FILE" in ended.err
