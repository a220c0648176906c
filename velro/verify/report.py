"""What verifying comes to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from velro.verify.findings import Finding, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from velro.verify.findings import UnreadableBucket

# Of each kind; all are counted. A million of one kind have one reason.
MOST_NAMED: Final = 10_000

EXIT_CONSISTENT: Final = 0
EXIT_FINDINGS: Final = 1
EXIT_NOT_READABLE: Final = 4


@dataclass(slots=True)
class Report:
    """What verifying found, and how much it looked at.

    Attributes:
        positions: how far each read model was when it was looked at.
        generations: how many were compared, in both read models.
        objects: how many the buckets hold under names of ours.
        young: of these, unknown to the log and too young to be orphans.
        foreign: objects under names that are not ours.
        read_deep: objects whose bytes were read.
        counts: findings, by kind.
        findings: the first of each kind.
        unreadable: buckets that events name and that gave no answer.
    """

    positions: dict[str, int] = field(default_factory=dict[str, int])
    events: int = 0
    generations: int = 0
    objects: int = 0
    young: int = 0
    foreign: int = 0
    read_deep: int = 0
    took_s: float = 0.0
    counts: Counter[Kind] = field(default_factory=Counter[Kind])
    findings: list[Finding] = field(default_factory=list[Finding])
    unreadable: list[UnreadableBucket] = field(default_factory=list["UnreadableBucket"])

    def add(self, findings: Iterable[Finding]) -> None:
        """Count findings, and name them while there are not too many."""
        for finding in findings:
            self.counts[finding.kind] += 1
            if self.counts[finding.kind] <= MOST_NAMED:
                self.findings.append(finding)

    @property
    def exit_code(self) -> int:
        """What a script reads: something is wrong, could not be read, or all is well."""
        if self.findings:
            return EXIT_FINDINGS
        return EXIT_NOT_READABLE if self.unreadable else EXIT_CONSISTENT

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "consistent": self.exit_code == EXIT_CONSISTENT,
            "positions": self.positions,
            "events": self.events,
            "generations": self.generations,
            "objects": {
                "ours": self.objects,
                "too_young_to_judge": self.young,
                "foreign": self.foreign,
                "read_deep": self.read_deep,
            },
            "took_s": round(self.took_s, 3),
            "counts": {kind.value: count for kind, count in sorted(self.counts.items())},
            "findings": [finding.as_data() for finding in self.findings],
            "unreadable": [
                {"bucket": each.bucket, "outputs": each.outputs, "why": each.why}
                for each in self.unreadable
            ],
        }
