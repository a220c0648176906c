"""How far verifying is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """So many of what is being counted are done; `total` is None where nobody knows it before."""

    what: str
    done: int
    total: int | None = None
