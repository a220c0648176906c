"""What was, over HTTP and by command; and no temporary link once all is stored."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from shared.messaging.connection import connected
from tests.acceptance.commands import Command
from tests.generation_events import (
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_stored,
    migrated,
    storage_failed,
)
from tests.http_world import Api, api

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from shared.contracts.subjects import Subjects

COMPLETED = completed("link", "link")
STORED = (
    REQUESTED,
    STARTED,
    SUBMITTED,
    COMPLETED,
    storage_failed(0, 1),
    media_stored(0),
    media_stored(1),
    migrated(2),
)


@pytest.fixture
async def velro(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[Api]:
    async with api(nats_url, stream, subjects, database) as opened:
        yield opened


async def test_a_generation_is_answered_as_it_was_at_a_position(velro: Api) -> None:
    end = await velro.world.say("g", *STORED[:6])
    now = await velro.generation("g", end)
    assert now["storage_state"] == "partial"
    was = await velro.client.get("/v1/generations/g", params={"as_of": end - 3})
    assert was.status_code == 200, was.text
    assert was.json()["status"] == "running"
    same = await velro.client.get("/v1/generations/g", params={"as_of": end})
    assert same.json() == now


@pytest.mark.parametrize(
    ("as_of", "status", "told"),
    [
        ("nonsense", 422, "neither a position of the log"),
        ("999999999", 422, "lies in the future"),
        ("2999-01-01T00:00:00Z", 422, "lies in the future"),
        ("0", 404, "no generation with this id then"),
        ("2001-01-01T00:00:00Z", 404, "no generation with this id then"),
    ],
)
async def test_a_moment_that_cannot_be_shown_is_told(
    velro: Api, as_of: str, status: int, told: str
) -> None:
    await velro.world.say("g", *STORED[:2])
    answer = await velro.client.get("/v1/generations/g", params={"as_of": as_of})
    assert answer.status_code == status, answer.text
    assert told in answer.text


async def test_temporary_links_leave_every_answer_once_all_is_stored(velro: Api) -> None:
    end = await velro.world.say("g", *STORED[:6])
    link = COMPLETED.outputs[1].source_url
    paths = ("/v1/generations/g", "/v1/generations/g/events", "/v1/generations")
    for path in paths:
        answer = await velro.client.get(path, params={"at_least": end, "wait_s": 20})
        assert link in answer.text
    half = {"as_of": end}

    end = await velro.world.say("g", *STORED[6:])
    for path in paths:
        answer = await velro.client.get(path, params={"at_least": end, "wait_s": 20})
        assert answer.status_code == 200
        assert link not in answer.text
    was = await velro.client.get("/v1/generations/g", params=half)
    assert was.json()["storage_state"] == "partial"
    assert link not in was.text
    watched = await velro.client.get("/v1/generations/g/watch", params={"until": "stored"})
    assert link not in watched.text


@pytest.mark.timeout(180)  # a dozen programs, one after the other
async def test_the_commands_show_what_was_and_what_changed_it(
    velro: Api, tmp_path: Path, nats_url: str, stream: str, subjects: Subjects
) -> None:
    end = await velro.world.say("g", *STORED)
    first = end - len(STORED) + 1
    command = Command(tmp_path)
    command.environment |= {
        "PATH": os.environ["PATH"],
        "VELRO_NATS_URL": nats_url,
        "VELRO_STREAM": stream,
        "VELRO_SUBJECT_ROOT": subjects.root,
    }
    shown = command.run("show", "g", "--at", str(first + 2), "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["status"] == "running"
    assert "completed" in command.run("show", "g").stdout

    differences = command.run("diff", "g", str(first + 2), str(end), "--json")
    assert differences.returncode == 0, differences.stderr
    told = json.loads(differences.stdout)
    assert told[0]["type"] == "velro.generation.completed.v1"
    assert told[0]["fields"]["status"] == {"from": "running", "to": "completed"}
    assert (
        "storage_state: partial -> stored" in command.run("diff", "g", str(first), str(end)).stdout
    )

    to_the_end = command.run("diff", "g", str(first + 2), "--json")
    assert json.loads(to_the_end.stdout) == told

    for words, why in (
        (("show", "none"), "has no generation none"),
        (("show", "g", "--at", "soon"), "neither a position of the log"),
        (("show", "g", "--at", "0"), f"it began at position {first}"),
        (("show", "g", "--at", f"{end + 1}"), f"the log ends at {end}"),
        (("diff", "g", f"{end}", "1"), "name the earlier one first"),
        (("diff", "g", f"{end}", "2001-01-01T00:00:00Z"), "name the earlier one first"),
        (("diff", "g", "0", f"{end + 1}"), "lies in the future"),
        (("diff", "g", f"{end + 1}"), "lies in the future"),
    ):
        refused = command.run(*words)
        assert refused.returncode == 2, refused.stdout
        assert "Traceback" not in refused.stderr
        assert why in refused.stderr


async def test_what_was_before_an_event_that_nobody_can_read_is_shown(
    velro: Api, tmp_path: Path, nats_url: str, stream: str, subjects: Subjects
) -> None:
    end = await velro.world.say("g", *STORED)
    first = end - len(STORED) + 1
    async with connected(nats_url, name="tests") as connection:
        await connection.request(subjects.generation("g"), b'{"type": "torn"}')
    command = Command(tmp_path)
    command.environment |= {
        "PATH": os.environ["PATH"],
        "VELRO_NATS_URL": nats_url,
        "VELRO_STREAM": stream,
        "VELRO_SUBJECT_ROOT": subjects.root,
    }
    shown = command.run("show", "g", "--at", str(end), "--json")
    assert json.loads(shown.stdout)["status"] == "completed", shown.stderr
    changed = command.run("diff", "g", str(first), str(end))
    assert "storage_state: partial -> stored" in changed.stdout, changed.stderr
    # By time too, where something that can be read came later.
    before = json.loads(command.run("show", "g", "--at", str(end - 1), "--json").stdout)
    by_time = command.run("show", "g", "--at", before["updated_at"], "--json")
    assert json.loads(by_time.stdout) == before, by_time.stderr
    told = command.run("diff", "g", before["created_at"], before["updated_at"])
    assert "status: running -> completed" in told.stdout, told.stderr
    last = json.loads(shown.stdout)["updated_at"]
    assert f"position {end + 1}, " in command.run("show", "g", "--at", last).stderr
    now = command.run("show", "g")
    assert now.returncode == 2
    assert f"position {end + 1}, {subjects.generation('g')}: " in now.stderr
