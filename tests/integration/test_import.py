"""An existing application's rows brought in by the command, from files and from a database."""

from __future__ import annotations

import asyncio
import csv
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg

from shared.contracts.storage_events import MediaStored
from tests.storage_process import run, storage_process
from tests.storage_world import now

if TYPE_CHECKING:
    from pathlib import Path

    from tests.storage_scene import Scene

MANY = 20_000


def rows(scene: Scene, count: int) -> list[dict[str, Any]]:
    made = now() - timedelta(hours=1)
    return [
        {
            "id": f"old-{number}",
            "user": "ann",
            "created_at": made.isoformat(),
            "output_urls": scene.media.url(f"old-{number}.png"),
            "metadata": json.dumps({"storage_retry_needed": True}),
        }
        for number in range(count)
    ]


def csv_of(path: Path, found: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0].keys())
        writer.writeheader()
        writer.writerows(found)
    return path


async def test_imported_media_is_stored_by_the_service(scene: Scene, tmp_path: Path) -> None:
    file = csv_of(tmp_path / "rows.csv", rows(scene, 3))
    ended = await run(scene.env, "import", str(file), "--provider", "sandbox")
    assert ended.code == 0, ended.err
    assert "3 events written" in ended.out
    async with storage_process(scene.env, "serve", quiet=True):
        await scene.world.until_pending(0)
    for number in range(3):
        said = await scene.world.said(f"old-{number}")
        assert [type(event) for event in said][:1] == [MediaStored]
    assert len(await scene.objects()) == 3


async def test_a_dry_run_shows_the_plan_and_writes_nothing(scene: Scene, tmp_path: Path) -> None:
    file = csv_of(tmp_path / "rows.csv", rows(scene, 5))
    ended = await run(scene.env, "import", str(file), "--dry-run", "--json")
    assert ended.code == 0, ended.err
    plan = json.loads(ended.out)["plan"]
    assert (plan["rows"], plan["to_publish"], plan["dead"]) == (5, 5, 0)
    assert plan["by_host"] == {"127.0.0.1": 5}
    assert await scene.world.log.last_position() == 0


async def test_rejected_rows_are_written_down_with_their_reasons(
    scene: Scene, tmp_path: Path
) -> None:
    found = rows(scene, 4)
    found[1]["user"] = "a/b"
    found[2]["output_urls"] = "gopher://x"
    file = csv_of(tmp_path / "rows.csv", found)
    rejects = tmp_path / "rejects.jsonl"
    ended = await run(scene.env, "import", str(file), "--rejects", str(rejects))
    assert ended.code == 3, ended.err
    lines = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert [line["row"] for line in lines] == [2, 3]
    assert lines[0]["reason"].startswith("user: ")
    assert lines[1]["values"]["output_urls"] == "gopher://x"
    assert await scene.world.log.last_position() == 2


async def test_what_was_rejected_can_be_imported_once_it_is_mended(
    scene: Scene, tmp_path: Path
) -> None:
    file, rejects = tmp_path / "rows.jsonl", tmp_path / "rejects.jsonl"
    file.write_text(json.dumps({"id": "g 1", "user": "ann", "created_at": "2026-05-01"}) + "\n")
    await run(scene.env, "import", str(file), "--rejects", str(rejects))
    ended = await run(scene.env, "import", str(rejects), "--rejects", str(rejects))
    assert "is what is imported: name another file" in ended.err
    line = json.loads(rejects.read_text())
    line["values"] |= {"id": "g1", "output_urls": ["https://v3.fal.media/files/a/b.png"]}
    rejects.write_text(json.dumps(line))
    ended = await run(scene.env, "import", str(rejects), "--rejects", str(tmp_path / "none.jsonl"))
    assert (ended.code, "1 events written" in ended.out) == (0, True), ended


async def test_an_import_that_was_killed_goes_on_and_writes_nothing_twice(
    scene: Scene, tmp_path: Path
) -> None:
    file = csv_of(tmp_path / "rows.csv", rows(scene, MANY))
    async with storage_process(scene.env, "import", str(file), quiet=True) as process:
        async with asyncio.timeout(30):
            # What another process has done is known by the log's end alone.
            while not await scene.world.log.last_position():  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.001)
        await process.kill()
    reached = await scene.world.log.last_position()
    assert 0 < reached < MANY
    ended = await run(scene.env, "import", str(file), "--json")
    assert ended.code == 0, ended.err
    done = json.loads(ended.out)["done"]
    assert done["events_there_before"] >= reached
    assert done["events"] + done["events_there_before"] == MANY
    assert await scene.world.log.last_position() == MANY


async def test_rows_come_from_a_select(scene: Scene, database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(
        """
        create table legacy (
            id uuid primary key, owner text, made timestamptz, urls text[], extra jsonb
        )
        """
    )
    await connection.execute(
        """
        insert into legacy
        select gen_random_uuid(), 'ann', now(), array['https://v3.fal.media/' || n],
            jsonb_build_object('fal_urls_temporary', n % 2 = 0, 'album', n)
        from generate_series(1, 10) as n
        """
    )
    query = "select id, owner, made as created_at, urls, extra as metadata from legacy"
    env = scene.env | {"VELRO_IMPORT_DSN": database}
    maps = ("--map", "user=owner", "--map", "output_urls=urls")
    ended = await run(env, "import", "--query", query, *maps, "--json")
    assert ended.code == 0, ended.err
    done = json.loads(ended.out)["done"]
    assert (done["rows"], done["stored_already"], done["events"]) == (10, 5, 10)

    ended = await run(env, "import", "--query", "delete from legacy", *maps)
    assert ended.code == 2
    assert "the query cannot be read" in ended.err
    assert await connection.fetchval("select count(*) from legacy") == 10
    await connection.close()


async def test_what_was_asked_wrongly_is_told(scene: Scene, tmp_path: Path) -> None:
    neither = await run(scene.env, "import")
    assert neither.code == 2
    assert "give a file" in neither.err
    file = csv_of(tmp_path / "rows.csv", rows(scene, 1))
    unknown = await run(scene.env, "import", str(file), "--map", "owner=user")
    assert unknown.code == 2
    assert "should be OURS=THEIRS" in unknown.err
    missing = await run(scene.env, "import", str(tmp_path / "none.csv"))
    assert missing.code == 2
    assert "is no file that can be read" in missing.err
