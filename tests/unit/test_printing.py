"""What commands print is what there is, whatever it holds and however narrow the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.printing import printer, table

if TYPE_CHECKING:
    import pytest

SHA256 = "ce2c3a653f8ccfe272bcbc4eb591a09426270c418fdd6b59c92599f288c92db6"


def test_brackets_are_text(capsys: pytest.CaptureFixture[str]) -> None:
    prompt = "[INST] a [bold]lighthouse[/bold] [/INST]"
    shown = table("prompt")
    shown.add_row(prompt)
    printer().print(prompt)
    printer().print(shown)
    assert capsys.readouterr().out.count(prompt) == 2


def test_a_value_without_room_is_broken_and_an_id_is_not(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    generation_id = "01a216a0-eb25-75c6-bfae-bf16691d"
    shown = table("generation", "hash", whole=("generation",))
    shown.add_row(generation_id, SHA256)
    printer().print(shown)
    lines = capsys.readouterr().out.splitlines()
    assert any(generation_id in line for line in lines)
    words = "".join(line.replace(generation_id, "").strip() for line in lines)
    assert SHA256 in words
