"""What can be wrong with an archive."""

from __future__ import annotations

from shared.errors import VelroError
from shared.event_log.port import LogMismatch


class ArchiveDamaged(VelroError):
    """Something in the archive is missing, or is not what was written. The message says what."""


class ArchiveForked(LogMismatch):
    """The log and its archive tell different histories. The message says from where on."""
