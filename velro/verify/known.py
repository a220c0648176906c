"""Which generations the log speaks of, so that rows of others are found, in bounded memory.

Where all is well, it is enough to have met as many rows as there are, with the same sum of their
ids' hashes. Only where that differs are single generations looked for, among fingerprints on disk.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from asyncpg import Record

_WRITTEN_AT_ONCE: Final = 20_000
# As many are held in memory at once, at 60 bytes each.
_HELD: Final = 400_000
_WORD: Final = 8


def fingerprint(generation_id: str) -> int:
    """A generation in 8 bytes, the same in every process."""
    return int.from_bytes(blake2b(generation_id.encode(), digest_size=_WORD).digest(), "big")


@dataclass(slots=True)
class Met:
    """Rows of one table: how many, and the sum of their ids' hashes, as Postgres makes them."""

    rows: int = 0
    hashes: int = 0

    def add(self, ids: Iterable[str], found: Mapping[str, Sequence[Record]]) -> None:
        """The rows that were found of these generations."""
        for one in ids:
            for record in found.get(one, ()):
                self.rows += 1
                self.hashes += record["id_hash"]

    def __add__(self, other: Met) -> Met:
        """Both."""
        return Met(self.rows + other.rows, self.hashes + other.hashes)


class Known:
    """Writes down the fingerprints of generations."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._waiting = array("Q")

    def add(self, generation_id: str) -> None:
        """The log speaks of this one."""
        self._waiting.append(fingerprint(generation_id))
        if len(self._waiting) >= _WRITTEN_AT_ONCE:
            self.close()

    def close(self) -> None:
        """Write the rest."""
        with self._file.open("ab") as file:
            self._waiting.tofile(file)
        del self._waiting[:]


def known_in(files: Sequence[Path], most_held: int = _HELD) -> Iterator[tuple[int, int, set[int]]]:
    """All fingerprints in these files, a part at a time.

    Each part is its number, how many parts there are, and all fingerprints whose remainder by that
    is that number.
    """
    total = sum(file.stat().st_size // _WORD for file in files)
    parts = 1 + total // most_held
    for part in range(parts):
        yield part, parts, {one for file in files for one in _read(file) if one % parts == part}


def _read(file: Path) -> Iterator[int]:
    with file.open("rb") as opened:
        while block := opened.read(_WORD * _WRITTEN_AT_ONCE):
            yield from array("Q", block)
