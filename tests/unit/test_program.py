"""What a program does while the servers that it needs are starting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from shared import program
from shared.program import when_ready

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def failing(*errors: Exception) -> Callable[[], Awaitable[None]]:
    left = list(errors)

    async def attempt() -> None:
        if left:
            raise left.pop(0)

    return attempt


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "_AGAIN_S", 0.0)


def patience_s(error: Exception) -> float:
    return 60.0 if isinstance(error, OSError) else 0.0


async def test_what_may_pass_is_waited_for_and_said_once(
    capsys: pytest.CaptureFixture[str],
) -> None:
    attempt = failing(OSError("no"), OSError("no"), OSError("not yet"))
    await when_ready(attempt, patience_s=patience_s)
    assert capsys.readouterr().err.splitlines() == [
        "waiting, 60 s at most: OSError: no",
        "waiting, 60 s at most: OSError: not yet",
    ]


async def test_what_does_not_pass_ends_it_at_once() -> None:
    with pytest.raises(ValueError, match="never"):
        await when_ready(failing(OSError("no"), ValueError("never")), patience_s=patience_s)


async def test_patience_ends() -> None:
    attempt = failing(*[OSError("no")] * 1_000_000)
    with pytest.raises(OSError, match="no"):
        await when_ready(attempt, patience_s=lambda _: 0.01)
