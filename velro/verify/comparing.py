"""Comparing folds with rows, column by column."""

from __future__ import annotations

import json
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from velro.verify.findings import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from asyncpg import Record

    from velro.verify.read_models import Compared

# An output's place among its user's equals is counted when it is saved; no event says it.
_NOT_SAID_BY_THE_LOG: Final = frozenset({"turn"})
_JSON_COLUMNS: Final = frozenset({"input", "metadata", "failure", "outputs"})
_SHOWN: Final = 200

Columns = tuple[Any, ...]
_Rows = list[Columns]
_NO_ROWS: Final[_Rows] = []


@dataclass(frozen=True, slots=True)
class Difference:
    """How the rows of a generation are not as the log says."""

    kind: Kind
    detail: str


class Comparison:
    """Compares folds of one read model with whole rows of its table."""

    def __init__(self, model: Compared) -> None:
        self._model = model
        self._names = [name for name in model.columns({}) if name not in _NOT_SAID_BY_THE_LOG]
        self._picked: Callable[[Record], Columns] | None = None

    def unequal(
        self, ids: Iterable[str], folded: Mapping[str, Any], found: Mapping[str, list[Record]]
    ) -> set[str]:
        """Of these generations, the ones whose rows are not as folded; `folded` may hold None."""
        expected, there = self._expected(folded), self._there(found)
        return {
            generation_id
            for generation_id in ids
            if self._differ(
                expected.get(generation_id, _NO_ROWS), there.get(generation_id, _NO_ROWS)
            )
        }

    def differing(
        self, ids: Iterable[str], folded: Mapping[str, Any], found: Mapping[str, list[Record]]
    ) -> dict[str, Difference]:
        """The same, and how they differ."""
        expected, there = self._expected(folded), self._there(found)
        different: dict[str, Difference] = {}
        for generation_id in ids:
            wanted = expected.get(generation_id, _NO_ROWS)
            rows = there.get(generation_id, _NO_ROWS)
            if self._differ(wanted, rows):
                different[generation_id] = self._difference(wanted, rows)
        return different

    def _expected(self, folded: Mapping[str, Any]) -> dict[str, _Rows]:
        written = {generation_id: row for generation_id, row in folded.items() if row is not None}
        columns = self._model.columns(written)
        expected: dict[str, _Rows] = {}
        each = zip(*(columns[name] for name in self._names), strict=True)
        for generation_id, row in zip(columns[self._model.id_column], each, strict=True):
            expected.setdefault(generation_id, []).append(row)
        return expected

    def _there(self, found: Mapping[str, list[Record]]) -> dict[str, _Rows]:
        if self._picked is None:
            if not found:
                return {}
            keys = list(next(iter(found.values()))[0].keys())
            self._picked = itemgetter(*(keys.index(name) for name in self._names))
        picked = self._picked
        return {
            generation_id: [picked(row) for row in rows] for generation_id, rows in found.items()
        }

    def _differ(self, wanted: _Rows, rows: _Rows) -> bool:
        if rows == wanted:
            return False
        return len(rows) != len(wanted) or bool(self._phrases(wanted, rows))

    def _difference(self, wanted: _Rows, rows: _Rows) -> Difference:
        if not wanted:
            return Difference(Kind.ROW_UNKNOWN, "the log says nothing that would make this row")
        if not rows:
            return Difference(Kind.ROW_MISSING, "there is no row")
        if len(rows) != len(wanted):
            said = f"{len(wanted)} rows are expected, {len(rows)} are there"
            return Difference(Kind.ROW_DIFFERS, said)
        return Difference(Kind.ROW_DIFFERS, "; ".join(self._phrases(wanted, rows)))

    def _phrases(self, wanted: _Rows, rows: _Rows) -> list[str]:
        return [
            f"{name} is {_short(there)} instead of {_short(expected)}"
            for before, after in zip(wanted, rows, strict=True)
            for name, expected, there in zip(self._names, before, after, strict=True)
            if expected != there and not (name in _JSON_COLUMNS and _same_json(expected, there))
        ]


def _same_json(one: object, other: object) -> bool:
    # Written by another version of a library, the same value may be another text.
    return isinstance(one, str) and isinstance(other, str) and json.loads(one) == json.loads(other)


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
