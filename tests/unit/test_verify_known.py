"""Which generations the log speaks of: as many as there are, in bounded memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from velro.verify.known import Known, fingerprint, known_in

if TYPE_CHECKING:
    from pathlib import Path

_MANY = 100


def test_each_generation_of_each_file_is_in_its_part_and_nowhere_else(tmp_path: Path) -> None:
    files = [tmp_path / "one", tmp_path / "other"]
    for place, file in enumerate(files):
        known = Known(file)
        for number in range(place, _MANY, 2):
            known.add(f"g{number}")
        known.close()
    wanted = {fingerprint(f"g{number}") for number in range(_MANY)}
    parts = list(known_in(files, most_held=40))
    assert len(parts) == 3
    assert sum(len(held) for _, _, held in parts) == _MANY
    assert set[int]().union(*(held for _, _, held in parts)) == wanted
    assert all(one % count == part for part, count, held in parts for one in held)


def test_where_the_log_speaks_of_none_there_is_one_part_with_nothing(tmp_path: Path) -> None:
    Known(tmp_path / "none").close()
    assert list(known_in([tmp_path / "none"])) == [(0, 1, set())]
