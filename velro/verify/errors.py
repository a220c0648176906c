"""What can keep verifying from coming to a result."""

from __future__ import annotations

from shared.errors import Refused, TryLater


class NotReadable(TryLater):
    """One of the three could not be read, so that nothing can be said of it."""


class NothingKnown(Refused):
    """Neither the log nor a read model knows a generation that was asked for by its id."""
