"""What the doctor says of the keys, when it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from generation_svc.settings import GenerationSettings
from tests.doctoring import examined
from velro.doctor.findings import Level
from velro.doctor.keys import keys_part
from velro.sandbox.server import running_sandbox
from velro.sandbox.settings import SandboxSettings
from velro.stack import ports

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

SECRET = 64 * "5"


@pytest.fixture
async def sandbox_url(tmp_path: Path) -> AsyncGenerator[str]:
    async with running_sandbox(SandboxSettings(data=tmp_path / "sandbox")) as running:
        yield running.url


def settings(**given: object) -> GenerationSettings:
    return GenerationSettings.model_validate(
        {
            "generation_postgres_dsn": "postgresql://unused",
            "webhook_base_url": "https://velro.example",
            "webhook_secret": SECRET,
        }
        | given
    )


async def test_keys_that_are_accepted_are_green(sandbox_url: str) -> None:
    found = await examined(keys_part(settings(sandbox_url=sandbox_url)))
    assert {name: finding.level for name, finding in found.items()} == {
        "webhook signing": Level.GREEN,
        "sandbox": Level.GREEN,
        "sandbox webhooks": Level.GREEN,
    }


async def test_a_key_that_the_provider_refuses_is_red(sandbox_url: str) -> None:
    given = settings(sandbox_url=sandbox_url, sandbox_key="revoked")
    found = (await examined(keys_part(given)))["sandbox"]
    assert found.level is Level.RED
    assert "401" in found.found
    assert "revoked" not in found.found


async def test_a_provider_that_is_away_is_red(tmp_path: Path) -> None:
    port = ports.choose(dict.fromkeys(("nobody",)), tmp_path / "ports.json")["nobody"]
    found = await examined(keys_part(settings(sandbox_url=f"http://127.0.0.1:{port}")))
    assert (found["sandbox"].level, found["sandbox webhooks"].level) == (Level.RED, Level.RED)


async def test_callbacks_that_cannot_be_had_or_believed_are_yellow() -> None:
    without = settings(webhook_base_url=None, webhook_secret=None)
    assert (await examined(keys_part(without)))["webhook signing"].level is Level.YELLOW
    short = settings(webhook_secret="hunter2")
    found = (await examined(keys_part(short)))["webhook signing"]
    assert found.level is Level.YELLOW
    assert "VELRO_WEBHOOK_SECRET" in found.found
    assert "hunter2" not in found.found
