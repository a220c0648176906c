"""What can go wrong between the log and a read model, by what the caller can do about it."""

from __future__ import annotations

from shared.errors import Conflict, Refused, TryLater


class Superseded(Conflict):
    """The checkpoint was moved by another writer: nothing was written; read it again."""


class AnotherIsActive(TryLater):
    """Somebody else holds the lock of this read model."""


class PartFailed(TryLater):
    """One of the processes of a rebuild ended before its work did."""


class PostgresAway(TryLater):
    """The database does not answer, or takes nothing now."""


class SchemaOutdated(Refused):
    """The tables were made for another version of this read model: rebuild them."""


class PoisonedEvent(Refused):
    """An event cannot be applied, and the rebuild that met it stops."""


class NotReached(TryLater):
    """The read model did not come to the position before the deadline."""


class TooManyWaiters(TryLater):
    """As many callers wait for a read model as may wait."""


class RebuildDiffers(Refused):
    """A rebuild came to other rows than those that serve, and nobody said that this is meant."""


class NothingToUndo(Refused):
    """There are no replaced tables that could serve again."""
