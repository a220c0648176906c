"""The one tree of errors: a class says what the caller can do about it.

VelroError
├── TryLater      the same work may succeed later
├── Refused       no retry can help
└── Conflict      somebody else decided first; decide again
"""

from typing import Final


class VelroError(Exception):
    """Anything Velro raises on purpose. The message says what was wrong and what to do."""


class TryLater(VelroError):
    """The same work may succeed later."""


class Refused(VelroError):
    """No retry can help; keep it for a person to see."""


class Conflict(VelroError):
    """The decision was made on a state that has changed since: load again and decide again."""


# What the standard library and drivers raise with nothing to read in it; the first that fits.
_MEANING: Final[dict[type[BaseException], str]] = {
    TimeoutError: "no answer in time",
    ConnectionError: "the connection was cut",
    EOFError: "it ended before all had come",
    MemoryError: "no memory was left",
}


def in_words(error: BaseException) -> str:
    """Its type and text; where it has none, as a timeout never has, what its type means."""
    name, text = type(error).__name__, str(error)
    if text:
        return f"{name}: {text}"
    meaning = next((means for kind, means in _MEANING.items() if isinstance(error, kind)), None)
    return name if meaning is None else f"{name}: {meaning}"
