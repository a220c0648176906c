"""The names of the log: one exact subject an aggregate, the event's type in the envelope."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.errors import Refused

if TYPE_CHECKING:
    from shared.contracts.facts import Family


class ForeignSubject(Refused):
    """The subject does not belong to an aggregate of this log."""


@dataclass(frozen=True, slots=True)
class Subjects:
    """Subjects under one root, so that several logs can live on one server."""

    root: str = "velro"

    def of(self, family: Family, generation_id: str) -> str:
        """The subject of one aggregate: `<root>.<family>.<generation id>`."""
        return f"{self.root}.{family}.{generation_id}"

    def generation(self, generation_id: str) -> str:
        """Written by the generation service, or by another service for its own generations."""
        return self.of("generation", generation_id)

    def storage(self, generation_id: str) -> str:
        """Written by the storage service alone."""
        return self.of("storage", generation_id)

    def every(self, family: Family) -> str:
        """The wildcard over one family."""
        return f"{self.root}.{family}.*"

    @property
    def whole(self) -> str:
        """The wildcard over both."""
        return f"{self.root}.>"

    def all(self) -> list[str]:
        """What the stream listens to."""
        return [self.every("generation"), self.every("storage")]

    def generation_id(self, subject: str) -> str:
        """The id that a subject ends in.

        Raises:
            ForeignSubject: not a subject of this log.
        """
        match subject.removeprefix(f"{self.root}.").split("."):
            case [("generation" | "storage"), generation_id] if generation_id:
                return generation_id
            case _:
                raise ForeignSubject(f"{subject!r} is not a subject of the log under {self.root!r}")
