"""Rows as files hold them, and what is wrong with each."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from storage_svc.adapters.import_sources import SourceUnreadable, rows_of_file
from storage_svc.application.import_rows import Found, Rejected
from storage_svc.programs.importing import Rejects

if TYPE_CHECKING:
    from pathlib import Path


async def read(path: Path) -> list[Found]:
    async with rows_of_file(path) as rows:
        first = [one async for one in rows()]
        assert [one async for one in rows()] == first
        return first


async def test_a_csv_is_read_with_what_is_wrong_with_each_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(
        b'\xef\xbb\xbfid,user\ng1,ann\ng2,"two\nlines"\n\ng3\ng4,\xff\ng5,"x"y\ng6,bob\n'
    )
    one, two, short, garbled, torn, last = await read(path)
    assert one == Found(1, {"id": "g1", "user": "ann"})
    assert two.values == {"id": "g2", "user": "two\nlines"}
    assert short.unreadable == "1 fields, and 2 columns"
    assert garbled.unreadable == "not UTF-8"
    assert torn.unreadable.startswith("no CSV")
    assert last.values == {"id": "g6", "user": "bob"}


async def test_json_lines_are_read_with_what_is_wrong_with_each(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"id": "g1"}\n\n[1]\n{"id":\n' + b"[" * 100_000 + b"\n"
        b'{"id": "\xff"}\n' + b'"' + b"x" * 3_000_000 + b'"\n{"id": "g2"}'
    )
    one, no_object, torn, deep, garbled, long, last = await read(path)
    assert one.values == {"id": "g1"}
    assert no_object.unreadable == "a line should be a JSON object"
    assert torn.unreadable.startswith("no JSON")
    assert deep.unreadable.startswith("no JSON")
    assert garbled.unreadable == "not UTF-8"
    assert "more than 1,048,576 bytes" in long.unreadable
    assert (last.number, last.values) == (7, {"id": "g2"})


async def test_rows_that_a_quote_swallowed_are_told_by_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    swallowed = "".join(f"g{number},ann\n" for number in range(3, 9))
    path.write_text(f'id,user\ng1,ann\ng2,"ann\n{swallowed}g9,"ann"\ng10,ann\n')
    first, torn, last = await read(path)
    assert first.values == {"id": "g1", "user": "ann"}
    assert torn.unreadable.endswith("; it takes up lines 3 to 10 of the file")
    assert last.values == {"id": "g10", "user": "ann"}


async def test_what_was_rejected_is_read_again_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "rejects.jsonl"
    values = {"id": "g 1", "user": "ann", "metadata": {"values": 1}}
    rejects = Rejects(path)
    rejects.add(Rejected(7, "no", values))
    rejects.add(Rejected(8, "no CSV", None))
    again, never = await read(path)
    assert again == Found(1, values)
    assert never.unreadable == "a line should be a JSON object"
    path.write_text(json.dumps({"id": "g1", "values": values}))
    assert (await read(path))[0].values == {"id": "g1", "values": values}


@pytest.mark.parametrize("name", ["rows.xlsx", "missing.csv"])
async def test_what_is_no_source_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceUnreadable, match=name):
        await read(tmp_path / name)


async def test_an_empty_csv_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.touch()
    with pytest.raises(SourceUnreadable, match="first line should name the columns"):
        await read(path)
