"""Files for what would not fit into memory, worth nothing after a crash."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def scratch_file(file: Path) -> sqlite3.Connection:
    """An SQLite file that does nothing against a crash; used by one thread at a time."""
    connection = sqlite3.connect(file, check_same_thread=False)
    connection.execute("pragma journal_mode = off")
    connection.execute("pragma synchronous = off")
    connection.execute("pragma cache_size = -32768")
    return connection
