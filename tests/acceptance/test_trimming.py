"""Settled generations leave the log's server, and no command and no request notices."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shared.contracts.envelope import Context, seal
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream import JetStreamLog
from shared.messaging.connection import connected
from tests.acceptance.commands import Command, running, wait_until
from tests.generation_events import CANCELLED, NOON, REQUESTED, STARTED, SUBMITTED
from velro.local import Local

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

# Half a second: whatever is settled by the time of the call.
DAYS = "0.000006"


@pytest.fixture
def velro(tmp_path: Path) -> Generator[Command]:
    with running(Command(tmp_path)) as command:
        yield command


def ended(velro: Command, *words: str, environment: dict[str, str] | None = None) -> str:
    """What a command says that has to end well."""
    program = "storage-svc" if environment else "velro"
    done = velro.run(*words, environment=environment, program=program, deadline_s=90)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def say_what_no_table_takes(local: Local, generation_id: str) -> None:
    """Append a history that is over, with an event in it that its read model parks."""
    asked = REQUESTED.model_copy(update={"provider": "sandbox"})
    nul = SUBMITTED.model_copy(update={"request_id": "\0"})

    async def say() -> None:
        async with connected(local.stack.addresses.nats_url, name="test") as connection:
            log = JetStreamLog(connection, Subjects(), stream="VELRO")
            envelopes = [
                seal(event, generation_id=generation_id, at=NOON, context=Context(source="tests"))
                for event in (asked, STARTED, nul, CANCELLED)
            ]
            await log.append("generation", generation_id, envelopes, expected=None)

    asyncio.run(say())


def test_after_a_trimming_everything_reads_replays_and_answers_as_before(velro: Command) -> None:
    local = Local(velro.directory / "local", owned=False)
    storage = dict(local.environment)
    asked = {
        "provider": "sandbox",
        "model": "sandbox/image",
        "input": {"prompt": "a lighthouse"},
        "user_id": "ann",
    }
    with httpx.Client(base_url=local.api_url, timeout=20, trust_env=False) as api:

        def request(key: str) -> dict[str, Any]:
            answer = api.post("/v1/generations", json=asked, headers={"Idempotency-Key": key})
            assert answer.is_success, answer.text
            found: dict[str, Any] = answer.json()
            return found

        ids = [request(f"key-{number}")["id"] for number in range(3)]

        def stored(generation_id: str) -> bool:
            found = api.get(f"/v1/generations/{generation_id}").json()
            # Right after the request it may not be in the read model yet.
            return found.get("storage_state") == "stored"

        wait_until(lambda: all(stored(each) for each in ids), deadline_s=60)
        say_what_no_table_takes(local, "nul-1")
        before = [json.loads(ended(velro, "show", each, "--json")) for each in ids]
        ended(velro, "generate", "the one that stays, since the archive's last event does")
        ended(velro, "archive", "--once", environment=storage)

        planned = json.loads(
            ended(velro, "trim", "--days", DAYS, "--dry-run", "--json", environment=storage)
        )
        assert planned["dry_run"] is True
        assert planned["generations"] >= 3
        done = json.loads(ended(velro, "trim", "--days", DAYS, "--json", environment=storage))
        assert done["events"] >= planned["events"]
        nothing = ended(velro, "trim", "--days", DAYS, environment=storage)
        assert "what follows stays" in nothing

        assert [json.loads(ended(velro, "show", each, "--json")) for each in ids] == before
        events = [json.loads(line) for line in ended(velro, "export").splitlines()]
        assert [event["position"] for event in events] == list(range(1, len(events) + 1))
        assert request("key-1")["id"] == ids[1]
        assert len(ended(velro, "export").splitlines()) == len(events)
        parked = json.loads(ended(velro, "parked", "show", "nul-1"))
        assert [event["event"]["type"] for event in parked if event["read_model"] == "generation"]
        still = velro.run("parked", "retry", "nul-1")
        assert (still.returncode, still.stderr) == (1, "")
        ended(velro, "parked", "discard", "nul-1", "--why", "a request id that is no text")
        assert "agree" in ended(velro, "verify")
        ended(velro, "replay", "--all")
        assert "agree" in ended(velro, "verify")
        told = json.loads(ended(velro, "doctor", "--json"))
        assert [each for each in told["findings"] if each["level"] != "green"] == []
        as_of = api.get(f"/v1/generations/{ids[0]}", params={"as_of": before[0]["position"]})
        assert as_of.json()["storage_state"] == "stored"
        ended(velro, "generate", "all goes on")
