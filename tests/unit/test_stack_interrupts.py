"""A signal interrupts where nothing is done but wait, and nowhere else."""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from velro.stack import interrupts, state
from velro.stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


@pytest.fixture(autouse=True)
def listening() -> Generator[None]:
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    interrupts.listen()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_what_comes_while_something_is_done_interrupts_the_next_pause(
    number: signal.Signals,
) -> None:
    signal.raise_signal(number)
    with pytest.raises(KeyboardInterrupt):
        interrupts.pause(30)
    interrupts.pause(0)


def test_what_comes_during_a_pause_interrupts_it() -> None:
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        interrupts.pause(60)
    timer.join()


def test_a_process_that_is_just_being_started_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = ManagedProcess(
        name="patient",
        argv=[sys.executable, "-c", "import signal; signal.pause()"],
        directory=tmp_path,
        ready=lambda: False,
    )
    whose = state.Identity.of

    def interrupted(pid: int) -> state.Identity | None:
        # It runs, and nobody has noted who it is.
        signal.raise_signal(signal.SIGTERM)
        return whose(pid)

    monkeypatch.setattr(state.Identity, "of", interrupted)
    process.spawn()
    with pytest.raises(KeyboardInterrupt):
        process.wait_until_ready()
    monkeypatch.undo()
    assert process.running
    process.stop()
    assert state.living(tmp_path) == []
