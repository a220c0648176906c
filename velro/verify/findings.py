"""What can be wrong between log, read models and bucket, and what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Kind(StrEnum):
    """What is wrong; scripts read these."""

    EVENT_UNUSABLE = "event_unusable"
    """An event of the log cannot be read, or cannot be applied."""

    PARKED = "parked"
    """A read model has put events of this generation aside: its row stands behind the log."""

    ROW_MISSING = "row_missing"
    ROW_DIFFERS = "row_differs"
    ROW_UNKNOWN = "row_unknown"
    """The log says nothing that would make this row."""

    OBJECT_MISSING = "object_missing"
    OBJECT_DIFFERS = "object_differs"
    OBJECT_ORPHANED = "object_orphaned"
    """An object with a name of ours that no event of the log speaks of."""


REPAIRS: Final = {
    Kind.EVENT_UNUSABLE: "mend the code or restore the log, then velro replay",
    Kind.PARKED: "mend what the reason names, then velro parked retry, or velro parked discard",
    Kind.ROW_MISSING: "--repair projects the generation again",
    Kind.ROW_DIFFERS: "--repair projects the generation again",
    Kind.ROW_UNKNOWN: "--repair takes the row away",
    Kind.OBJECT_MISSING: "--repair copies it again while its link lives, else records the loss",
    Kind.OBJECT_DIFFERS: "--repair copies it again while its link lives, else records the loss",
    Kind.OBJECT_ORPHANED: "--repair deletes it, after asking or with --yes",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        detail: a sentence for a person: what was expected, what was found.
        read_model: which one, where it is about a row.
        position: in the log, where it is about an event.
    """

    kind: Kind
    detail: str
    generation_id: str | None = None
    read_model: str | None = None
    position: int | None = None
    bucket: str | None = None
    key: str | None = None
    output_index: int | None = None

    def as_data(self) -> dict[str, Any]:
        """For JSON: what applies, and the repair."""
        said = {
            "kind": self.kind.value,
            "generation_id": self.generation_id,
            "read_model": self.read_model,
            "position": self.position,
            "bucket": self.bucket,
            "key": self.key,
            "output_index": self.output_index,
            "detail": self.detail,
            "repair": REPAIRS[self.kind],
        }
        return {name: value for name, value in said.items() if value is not None}


@dataclass(frozen=True, slots=True)
class UnreadableBucket:
    """A bucket that events name and that gives no answer to us: its objects were not looked at."""

    bucket: str
    outputs: int
    why: str
