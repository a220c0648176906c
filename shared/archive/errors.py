"""What can be wrong with an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.errors import VelroError
from shared.event_log.port import LogMismatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.archive.manifest import Link


class ArchiveDamaged(VelroError):
    """Something in the archive is missing, or is not what was written. The message says what."""


class ManifestBroken(ArchiveDamaged):
    """An entry of the manifest is missing.

    Attributes:
        runs: the links on each side of what is missing; in the first are those that lead on from
            the beginning, and it is empty where none does.
    """

    def __init__(self, message: str, *, runs: Sequence[Sequence[Link]]) -> None:
        super().__init__(message)
        self.runs = runs


class ArchiveForked(LogMismatch):
    """The log and its archive tell different histories. The message says from where on."""
