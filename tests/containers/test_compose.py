"""compose.yaml, tried as its user would: up, the demo's story, down, and nothing left."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.containers.compose import Compose
from velro.demo.claims import Claims
from velro.demo.story import perform
from velro.stack import ports

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture
def compose(tmp_path: Path) -> Generator[Compose]:
    names = ("nats", "postgres", "s3", "sandbox", "api")
    chosen = ports.choose(dict.fromkeys(names), tmp_path / "ports.json")
    compose = Compose(f"velro-{secrets.token_hex(4)}", chosen)
    compose.build()
    try:
        compose.up()
        yield compose
    finally:
        compose.down()


@pytest.mark.timeout(600)
async def test_the_story_holds_on_compose(
    compose: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in os.environ if name.startswith("VELRO_")]:
        monkeypatch.delenv(name)
    for name, value in compose.settings().items():
        monkeypatch.setenv(name, value)
    claims = Claims(Console(width=160))
    await perform(compose, claims, claims.console)
    assert claims.all_hold, capsys.readouterr().out + compose.logs()
