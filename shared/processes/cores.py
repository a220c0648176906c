"""How many processes a work of Python's is worth dividing among."""

from __future__ import annotations

import os
from typing import Final

# What feeds them is one process, and has enough to do with four.
_MOST: Final = 4


def processes_worth_having() -> int:
    """As many as this process may use cores, within reason."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(_MOST, cores or 1)
