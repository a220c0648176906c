"""What an operator asks of a Velro, as commands: the doctor, and what was parked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from shared.messaging.connection import connected
from tests.acceptance.commands import Command, running, wait_until
from velro.local import Local
from velro.stack import state

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def velro(tmp_path: Path) -> Generator[Command]:
    with running(Command(tmp_path)) as command:
        yield command


pytestmark = pytest.mark.timeout(180)


def doctor(velro: Command) -> tuple[int, dict[str, Any]]:
    done = velro.run("doctor", "--json")
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def levels(told: dict[str, Any]) -> dict[str, str]:
    return {finding["check"]: finding["level"] for finding in told["findings"]}


def test_the_doctor_finds_a_new_velro_green_and_one_with_dead_parts_red(velro: Command) -> None:
    assert velro.run("generate", "a lighthouse in a storm").returncode == 0
    status, told = doctor(velro)
    assert (status, told["level"]) == (0, "green"), told
    assert set(levels(told).values()) == {"green"}

    living = {record.name: record for record in state.living(velro.directory / "local")}
    for name in ("postgres", "storage", "seaweedfs"):
        os.kill(living[name].identity.pid, signal.SIGKILL)
    wait_until(
        lambda: len(state.living(velro.directory / "local")) == len(living) - 3, deadline_s=20
    )
    status, told = doctor(velro)
    assert (status, told["level"]) == (1, "red")
    found = levels(told)
    assert found["postgres of generation"] == found["postgres of storage"] == "red"
    assert found["bucket media: capabilities"] == "red"
    assert found["nats: stream"] == "green"
    assert all(finding["advice"] for finding in told["findings"] if finding["level"] != "green")


def say_nonsense(velro: Command, generation_id: str) -> None:
    """Append an event that nobody can read."""
    url = Local(velro.directory / "local", owned=False).stack.addresses.nats_url

    async def say() -> None:
        async with connected(url, name="test") as connection:
            await connection.request(f"velro.generation.{generation_id}", b'{"type": "torn"}')

    asyncio.run(say())


def test_what_was_parked_is_listed_shown_retried_and_discarded(velro: Command) -> None:
    say_nonsense(velro, "torn-1")

    def parked() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(velro.run("parked", "list", "--json").stdout)[
            "parked"
        ]
        return found

    wait_until(lambda: len(parked()) == 2, deadline_s=30)
    assert {event["read_model"] for event in parked()} == {"generation", "storage"}
    assert "torn-1" in velro.run("parked", "list", "--read-model", "storage").stdout
    assert json.loads(velro.run("stats", "--json").stdout)["parked"] == {
        "generation": 1,
        "storage": 1,
    }
    shown = json.loads(velro.run("parked", "show", "torn-1").stdout)
    assert [event["event"] for event in shown] == [{"type": "torn"}, {"type": "torn"}]

    retried = velro.run("parked", "retry", "--all")
    assert retried.returncode == 1
    assert "stays parked" in retried.stdout

    assert velro.run("parked", "discard", "torn-1").returncode == 2  # not without a reason
    nobody = velro.run("replay", "generation", "--only", "generation=nobody")
    assert nobody.returncode == 2
    assert "the log has no event of nobody" in nobody.stderr
    nobody = velro.run("replay", "generation", "--only", "user=[/nobody]")
    assert nobody.returncode == 2
    assert "a generation of [/nobody]" in nobody.stderr
    stopped = velro.run("replay", "generation")
    assert stopped.returncode == 2
    for told in (
        "read model generation",
        "velro.generation.torn-1, torn",
        "KeyError",
        "Nothing was changed",
        "velro parked discard torn-1",
    ):
        assert told in stopped.stderr

    never = velro.run("parked", "discard", "torn-1", "--undo")
    assert never.returncode == 2
    assert "no event of generation torn-1 was discarded" in never.stderr
    aside = velro.run("replay", "storage", "--park")
    assert aside.returncode == 0, aside.stdout + aside.stderr
    assert "1 events could not be applied" in aside.stdout
    discarded = velro.run("parked", "discard", "torn-1", "--why", "it was a test")
    assert discarded.returncode == 0, discarded.stdout + discarded.stderr
    assert "0 event(s) of torn-1 have their effect, 1 is left out" in discarded.stdout
    assert parked() == []
    listed = velro.run("parked", "list")
    assert "Nothing is parked" in listed.stdout
    assert "it was a test" in listed.stdout
    nobody = velro.run("parked", "retry", "torn-1")
    assert nobody.returncode == 2
    assert "velro parked list" in nobody.stderr
    assert velro.run("generate", "all goes on").returncode == 0
