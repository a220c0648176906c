"""What leaves the stream: of each generation, at which positions the archive has its events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

from shared.contracts.facts import Fact

if TYPE_CHECKING:
    from collections.abc import Iterable

    from shared.contracts.facts import Family
    from shared.contracts.subjects import Subjects
    from shared.event_log.port import RawRecord


class Departed(Fact):
    """At which positions the archive has the events of one generation that left the stream."""

    generation: tuple[int, ...] = ()
    storage: tuple[int, ...] = ()

    def of(self, family: Family) -> tuple[int, ...]:
        """Those of one aggregate, in order."""
        return self.generation if family == "generation" else self.storage

    def joined(self, other: Departed) -> Departed:
        """Those of both."""
        return Departed(
            generation=tuple(sorted({*self.generation, *other.generation})),
            storage=tuple(sorted({*self.storage, *other.storage})),
        )


class Through(Fact):
    """Up to which position events were trimmed, or are about to be."""

    position: int


@dataclass(slots=True)
class Departing:
    """Positions by generation and family, in the order in which generations first appear."""

    subjects: Subjects
    positions: dict[str, dict[Family, list[int]]] = field(
        default_factory=dict[str, "dict[Family, list[int]]"]
    )

    def add(self, records: Iterable[RawRecord]) -> dict[str, int]:
        """The generations that are new, and where each begins."""
        new: dict[str, int] = {}
        for record in records:
            generation_id = self.subjects.generation_id(record.subject)
            if generation_id not in self.positions:
                self.positions[generation_id] = {}
                new[generation_id] = record.position
            family = cast("Family", record.subject.split(".")[-2])
            self.positions[generation_id].setdefault(family, []).append(record.position)
        return new

    def until(self, last: int) -> dict[str, Departed]:
        """What is up to a position."""
        found: dict[str, Departed] = {}
        for generation_id, families in self.positions.items():
            departed = Departed(
                **{
                    family: tuple(position for position in positions if position <= last)
                    for family, positions in families.items()
                }
            )
            if departed != Departed():
                found[generation_id] = departed
        return found
