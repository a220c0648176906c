"""Operators alert on names of log lines: what the guide names is what the services say."""

from __future__ import annotations

import ast
import re
from datetime import UTC, datetime
from pathlib import Path

from structlog.testing import capture_logs

from shared.contracts.reasons import ReasonCode
from storage_svc.application.backlog import Lease
from storage_svc.application.store_output import LostNow
from storage_svc.application.telling import tell

ROOT = Path(__file__).parents[2]
LEVELS = {"info", "warning", "error", "exception", "critical"}


def named_in_the_guide() -> set[str]:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"Those to alert on: ([^.]+)\.", guide)
    return set(re.findall(r"`([a-z_]+)`", sentence)) - {"refusing"}


def said_by_the_services() -> set[str]:
    """The first argument of every call that writes a log line."""
    said: set[str] = set()
    for room in ("generation_svc", "storage_svc", "shared"):
        for file in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                match node:
                    case ast.Call(
                        func=ast.Attribute(attr=level), args=[ast.Constant(value=str(name)), *_]
                    ) if level in LEVELS:
                        said.add(name)
                    case _:
                        pass
    return said


def test_every_log_line_that_the_guide_alerts_on_is_written_by_that_name() -> None:
    alerts = named_in_the_guide()
    assert "media_lost" in alerts
    assert alerts <= said_by_the_services()


def test_a_lost_output_is_said_as_an_error_with_its_reason() -> None:
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    lease = Lease("g", 2, "ann", "fal", "https://a.example/x", "a.example", moment, attempts=3)
    with capture_logs() as lines:
        tell(lease, LostNow(ReasonCode.SOURCE_EXPIRED, "410 Gone"))
    (line,) = lines
    assert line["event"] == "media_lost"
    assert line["log_level"] == "error"
    assert (line["generation_id"], line["output"], line["reason"]) == ("g", 2, "source_expired")
