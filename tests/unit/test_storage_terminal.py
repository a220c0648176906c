"""What a person copies from a list stands there whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from shared.printing import printer
from storage_svc.adapters.terminal import print_outputs
from storage_svc.application.backlog import OutputRef
from storage_svc.application.reporting import WaitingOutput

if TYPE_CHECKING:
    import pytest

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
GENERATION_ID = "01a216ae-9bcc-73a6-8152-1b10c9b7976f"
DETAIL = "media.example gave no answer: no connection to media.example: connection [refused]"


def test_an_id_and_the_reason_are_whole_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    output = WaitingOutput(
        ref=OutputRef(GENERATION_ID, 1),
        user_id="ann@velro.example",
        provider="sandbox",
        source_host="media.example",
        dies_at=NOON + timedelta(minutes=5),
        attempts=3,
        at=NOON + timedelta(seconds=20),
        state="pending",
        reason="source_unavailable",
        detail=DETAIL,
        running=False,
    )
    print_outputs(printer(), [output], now=NOON, at="again")
    shown = capsys.readouterr().out
    assert f"{GENERATION_ID} output 1  its link dies in 5 min" in shown
    assert "of ann@velro.example, from media.example: 3 failed, again in 20 s" in shown
    assert f"source_unavailable: {DETAIL}" in shown
