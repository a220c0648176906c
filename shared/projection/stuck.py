"""A fold that never ends holds the whole process: nothing of Python's own could end it."""

from __future__ import annotations

import faulthandler
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Generator

_STDERR: Final = 2


@contextmanager
def ending_when_stuck(limit_s: float | None) -> Generator[None]:
    """End the process when what is inside, which must not await, takes longer.

    Where it was is written to stderr. The timer is a thread outside the interpreter (faulthandler),
    so it ends loops in C too; it costs 40 us, and there is one a process.

    Args:
        limit_s: None leaves it alone.
    """
    if limit_s is None:
        yield
        return
    faulthandler.dump_traceback_later(limit_s, exit=True, file=_STDERR)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
