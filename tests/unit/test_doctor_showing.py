"""What the doctor prints at the width of a terminal."""

from __future__ import annotations

from io import StringIO

from rich.console import Console

from velro.doctor.command import show
from velro.doctor.findings import Finding, Level

LONG = "the log ends at position 0, and the read model holds events up to 16: it was made anew"
ADVICE = "if the log was lost, bring it back with `velro restore`, else accept this one"


def test_what_is_well_takes_a_line_and_what_is_not_is_told_whole() -> None:
    console = Console(
        file=StringIO(), width=60, markup=False, force_terminal=True, color_system=None
    )
    found = [
        Finding("nats: sync_interval", Level.GREEN, LONG),
        Finding("read model: log", Level.RED, LONG, ADVICE),
        Finding("nats: clock", Level.GREEN, "within 0.1 s of ours"),
    ]
    show(found, console)
    assert isinstance(console.file, StringIO)
    first, red, advice, last, counts = console.file.getvalue().splitlines()
    assert len(first) <= 60
    assert first.startswith("  green   nats: sync_interval: the log ends")
    assert red == f"  red     read model: log: {LONG}"
    assert advice.strip() == f"-> {ADVICE}"
    assert last == "  green   nats: clock: within 0.1 s of ours"
    assert counts == "2 green, 1 red"


def test_what_somebody_reads_from_a_pipe_is_whole() -> None:
    console = Console(file=StringIO(), width=60, markup=False)
    show([Finding("nats: sync_interval", Level.GREEN, LONG)], console)
    assert isinstance(console.file, StringIO)
    assert f"nats: sync_interval: {LONG}\n" in console.file.getvalue()
