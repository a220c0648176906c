"""Signals that end a program, taken where it can bear them.

Python may raise what a signal handler raises between any two steps: between the start of a process
and the noting of who it is, which leaves a process that nobody ends and somebody waits for. So a
signal is only noted, and what is under way is interrupted where it does nothing but wait.
"""

from __future__ import annotations

import signal
import threading
from time import sleep
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from types import FrameType

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a polite kill, and a terminal that closes."""


class _Interrupts:
    def __init__(self) -> None:
        self._came = self._waiting = False

    def listen(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def pause(self, seconds: float) -> None:
        if threading.current_thread() is not threading.main_thread():
            sleep(seconds)  # handlers run in the main thread
            return
        self._waiting = True
        try:
            if self._came:
                self._interrupt()
            sleep(seconds)
        finally:
            self._waiting = False

    def _hear(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        if self._waiting:
            self._interrupt()

    def _interrupt(self) -> NoReturn:
        self._came = False
        raise KeyboardInterrupt


_interrupts = _Interrupts()


def listen() -> None:
    """From now on the signals interrupt a pause, or the next one, and nothing else."""
    _interrupts.listen()


def pause(seconds: float) -> None:
    """Wait.

    Raises:
        KeyboardInterrupt: a signal has come, now or since the pause before.
    """
    _interrupts.pause(seconds)
