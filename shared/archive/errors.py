"""What can be wrong with an archive."""

from __future__ import annotations

from shared.errors import VelroError
from shared.event_log.port import LogMismatch


class ArchiveDamaged(VelroError):
    """Something in the archive is missing, or is not what was written. The message says what."""


class ManifestBroken(ArchiveDamaged):
    """An entry of the manifest is missing.

    Attributes:
        reached: the last position that its entries lead to.
        newest: the last position that one of them is about.
    """

    def __init__(self, message: str, *, reached: int, newest: int) -> None:
        super().__init__(message)
        self.reached = reached
        self.newest = newest


class ArchiveForked(LogMismatch):
    """The log and its archive tell different histories. The message says from where on."""
