"""`velro verify` as an operator runs it: what agrees, what was damaged, and mending it."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import pytest

from shared.object_store.port import Held, PutOrder
from shared.object_store.s3 import s3_object_store
from shared.postgres.connecting import close, connect
from tests.acceptance.commands import Command, running, wait_until
from tests.object_stores import settings_for
from velro.local import Local

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def velro(tmp_path: Path) -> Generator[Command]:
    with running(Command(tmp_path)) as command:
        yield command


def shown(velro: Command, generation_id: str) -> dict[str, Any]:
    done = velro.run("show", generation_id, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def verified(velro: Command, *words: str) -> tuple[int, dict[str, Any]]:
    done = velro.run("verify", "--json", "--grace", "0m", *words)
    assert done.returncode in {0, 1}, done.stdout + done.stderr
    return done.returncode, json.loads(done.stdout)


def in_generations(local: Local, *statements: str) -> None:
    async def said() -> None:
        dsn = local.stack.addresses.generation_dsn
        connection = await connect(dsn, schema="generation", application_name="a test")
        try:
            for statement in statements:
                assert (await connection.execute(statement)).endswith(" 1"), statement
        finally:
            await close(connection)

    asyncio.run(said())


def in_bucket(local: Local, *, delete: str, cut: str, add: str) -> None:
    def bytes_at(key: str, content: bytes) -> PutOrder:
        digest = sha256(content).hexdigest()
        return PutOrder(key, Held(content), len(content), digest, "image/png")

    async def done() -> None:
        async with s3_object_store(settings_for(local.stack.addresses.s3)) as store:
            await store.delete(delete)
            await store.delete(cut)
            await store.put(bytes_at(cut, b"shorter"))
            await store.put(bytes_at(add, b"nobody's"))

    asyncio.run(done())


def test_each_damage_is_named_and_mended(velro: Command) -> None:
    for number in range(5):
        done = velro.run("generate", f"lighthouse number {number}")
        assert done.returncode == 0, done.stdout + done.stderr
    local = Local(velro.directory / "local", owned=False)
    exported = velro.run("export", "--type", "generation.requested").stdout
    ids = [json.loads(line)["event"]["subject"] for line in exported.splitlines()]
    wait_until(lambda: all(shown(velro, each)["storage_successful"] for each in ids), deadline_s=60)
    wait_until(lambda: verified(velro)[0] == 0, deadline_s=30)
    code, told = verified(velro)
    assert (code, told["consistent"], told["findings"]) == (0, True, [])
    assert told["generations"] == 5
    deep = velro.run("verify", "--deep")
    assert deep.returncode == 0
    assert "log, read models and bucket agree" in deep.stdout

    changed, deleted, lost, cut, untouched = ids
    lost_key, cut_key, kept_key = (
        shown(velro, each)["outputs"][0]["stored"]["key"] for each in (lost, cut, untouched)
    )
    orphan = kept_key.replace(untouched, "0" * 8 + untouched[8:])
    in_generations(
        local,
        f"update generations set model = 'another' where id = '{changed}'",  # noqa: S608 - our own id
        f"delete from generations where id = '{deleted}'",  # noqa: S608 - the same
    )
    in_bucket(local, delete=lost_key, cut=cut_key, add=orphan)
    code, told = verified(velro)
    assert code == 1
    named = {
        (each["kind"], each.get("generation_id"), each.get("key")) for each in told["findings"]
    }
    assert named == {
        ("row_differs", changed, None),
        ("row_missing", deleted, None),
        ("object_missing", lost, lost_key),
        ("object_differs", cut, cut_key),
        ("object_orphaned", None, orphan),
    }
    assert all(each["detail"] and each["repair"] for each in told["findings"])

    only_one = verified(velro, "--only", f"generation={changed}")[1]["findings"]
    assert [each["generation_id"] for each in only_one] == [changed]

    code, told = verified(velro, "--repair", "--yes")
    assert code == 0, told
    assert [each["done"] for each in told["repaired"]] == [True] * 5
    wait_until(lambda: verified(velro)[0] == 0, deadline_s=30)
    assert velro.run("verify", "--deep").returncode == 0
    assert shown(velro, lost)["storage_successful"] is True


def test_what_cannot_be_asked_or_answered_is_said_in_a_sentence(tmp_path: Path) -> None:
    command = Command(tmp_path)
    wrong = command.run("verify", "--grace", "soon")
    assert wrong.returncode == 2
    assert "write 90m, 24h or 7d" in wrong.stderr
    wrong = command.run("verify", "--only", "user=ann")
    assert wrong.returncode == 2
    assert "generation=ID" in wrong.stderr
    wrong = command.run("verify", "--json", "--repair")
    assert wrong.returncode == 2
    assert "add --yes" in wrong.stderr
    nowhere = command.run("verify")
    assert nowhere.returncode == 2
    assert "Traceback" not in nowhere.stderr
    assert nowhere.stderr.strip()
