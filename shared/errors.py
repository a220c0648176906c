"""The one tree of errors: a class says what the caller can do about it.

VelroError
├── TryLater      the same work may succeed later
├── Refused       no retry can help
└── Conflict      somebody else decided first; decide again
"""


class VelroError(Exception):
    """Anything Velro raises on purpose. The message says what was wrong and what to do."""


class TryLater(VelroError):
    """The same work may succeed later."""


class Refused(VelroError):
    """No retry can help; keep it for a person to see."""


class Conflict(VelroError):
    """The decision was made on a state that has changed since: load again and decide again."""
