"""Looking at the log by command."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shared.messaging.jetstream import jetstream_of

if TYPE_CHECKING:
    from tests.archives import Archived

VELRO = str(Path(sys.executable).parent / "velro")


@pytest.fixture
def env(nats_url: str, subject_root: str, stream: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "COLUMNS": "200",
        "VELRO_NATS_URL": nats_url,
        "VELRO_STREAM": stream,
        "VELRO_SUBJECT_ROOT": subject_root,
    }


async def velro(env: dict[str, str], line: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_shell(
        line,
        env=env | {"VELRO": VELRO},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(40):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode()


async def test_the_log_is_exported_whole_and_in_order(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 30)
    code, out = await velro(env, "$VELRO export")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [line["position"] for line in lines] == list(range(1, 31))
    assert lines[6]["event"]["subject"] == "g7"
    assert lines[6]["subject"].endswith(".generation.g7")


async def test_what_is_asked_for_is_exported_and_nothing_else(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 30)

    async def exported(options: str) -> list[int]:
        _, out = await velro(env, f"$VELRO export {options}")
        return [json.loads(line)["position"] for line in out.splitlines()]

    assert await exported("--from 5 --until 8") == [5, 6, 7, 8]
    assert await exported("--generation g3 --generation g9") == [3, 9]
    assert await exported("--type cancelled --until 2") == [1, 2]
    assert await exported("--type media_lost") == []
    assert await exported("--from 2026-05-05T00:00:00Z") == []
    assert len(await exported("--from 2026-05-04T00:00:00Z --until 2026-05-05T00:00:00Z")) == 30
    assert await exported("--from 31") == []


async def test_the_newest_are_shown_and_what_cannot_be_read_is_shown_as_that(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 30)
    jetstream = jetstream_of(archived.connection)
    await jetstream.publish(f"{archived.stream.lower()}.generation.x", b"\xffno")
    code, out = await velro(env, "$VELRO tail")
    lines = out.splitlines()
    assert code == 0
    assert len(lines) == 20
    assert "velro.generation.cancelled.v1" in lines[0]
    assert "cannot be read" in lines[-1]


async def test_the_newest_of_a_kind_are_found_far_from_the_end(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 2_500)
    code, out = await velro(env, "$VELRO tail --generation g3 --generation g12 --generation g2499")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["3", "12", "2,499"]
    assert "velro.generation.cancelled.v1" in out  # nothing is cut where nobody's terminal is
    _, out = await velro(env, "$VELRO tail --until 1100 | tail -1")
    assert out.split()[0] == "1,100"


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ("--from 40", 2, "the log ends at 30"),
        ("--from 9 --until 3", 2, "comes after --until 3"),
        ("--follow --until 3", 2, "leave --until out"),
        ("--generation nobody", 0, "no event up to position 30"),
    ],
)
async def test_what_cannot_be_shown_is_told(
    archived: Archived, env: dict[str, str], options: str, status: int, said: str
) -> None:
    await archived.fill(1, 30)
    code, out = await velro(env, f"$VELRO tail {options}")
    assert code == status
    assert said in out


async def test_a_reader_that_stops_reading_is_no_error(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 300, text="x" * 1500)
    _, out = await velro(env, "$VELRO export | head -1")
    assert len(out.splitlines()) == 1
    assert "Traceback" not in out
    assert "Broken pipe" not in out


async def test_following_shows_new_events_until_it_is_interrupted(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 2)
    process = await asyncio.create_subprocess_exec(
        VELRO, "tail", "--follow", "--json", env=env, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        seen = [json.loads(await process.stdout.readline())["position"] for _ in range(2)]
        await archived.fill(3, 4)
        seen += [json.loads(await process.stdout.readline())["position"] for _ in range(2)]
        assert seen == [1, 2, 3, 4]
        process.send_signal(signal.SIGINT)
        assert await process.stdout.read() == b""
        assert await process.wait() == 0


async def test_a_moment_that_is_none_is_told(env: dict[str, str], archived: Archived) -> None:
    assert await archived.log.last_position() == 0
    code, out = await velro(env, "$VELRO export --from yesterday")
    assert code == 2
    assert "neither a position of the log" in out
    assert "Traceback" not in out
