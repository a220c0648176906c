"""The demo as somebody who pays for it would try it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.acceptance.commands import Command, wait_until
from velro.demo.claims import Claims
from velro.stack import state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(240)
def test_the_demo_holds_every_claim_and_leaves_nothing_running(tmp_path: Path) -> None:
    demo = Command(tmp_path).run("demo", deadline_s=180)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "every claim holds" in demo.stdout
    assert "✗" not in demo.stdout
    assert state.living(tmp_path / "demo") == []


@pytest.mark.timeout(150)
@pytest.mark.parametrize("moment", ["starting", "1.", "2."])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_interrupted_at_any_moment_leaves_nothing_running(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    output = tmp_path / "output"
    demo = Command(tmp_path).start("demo", output=output)
    servers = tmp_path / "demo" / "ports.json"
    begun = servers.exists if moment == "starting" else lambda: moment in output.read_text()
    try:
        wait_until(lambda: begun() or demo.poll() is not None, deadline_s=60)
        demo.send_signal(number)
        assert demo.wait(60) == 130, output.read_text()
        assert state.living(tmp_path / "demo") == []
    finally:
        demo.kill()  # where the test failed; nothing otherwise
        demo.wait(10)


def test_a_claim_that_does_not_hold_fails_the_demo() -> None:
    claims = Claims(Console(quiet=True))
    with claims.act("one"):
        claims.claim("true", holds=True)
    assert claims.all_hold
    with claims.act("two"):
        claims.counted("all of them", found=3, of=4)
    assert not claims.all_hold


def test_an_act_without_claims_fails_the_demo() -> None:
    claims = Claims(Console(quiet=True))
    with claims.act("nothing was checked"):
        pass
    assert not claims.all_hold


def test_none_of_none_is_not_all() -> None:
    claims = Claims(Console(quiet=True))
    with claims.act("one"):
        claims.counted("all of nothing", found=0, of=0)
    assert not claims.all_hold
