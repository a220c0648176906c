"""Where rows come from: files of CSV or JSON lines, or a SELECT on another Postgres."""

from __future__ import annotations

import asyncio
import csv
import json
import re
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import asyncpg

from shared.errors import Refused, TryLater
from storage_svc.application.import_rows import Found

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Mapping
    from pathlib import Path

    Source = Callable[[], AsyncGenerator[Found, None]]

# What a line of the file of rejected rows holds: it can be imported when its values are mended.
_REJECTED: Final = {"row", "reason", "values"}
_MAX_LINE_BYTES: Final = 1024 * 1024
_ROWS_A_TURN: Final = 500
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
_PREFETCH: Final = 1000
_CONNECT_S: Final = 10.0
_FETCH_S: Final = 300.0


class SourceUnreadable(Refused):
    """The source is not there, or is not what it was said to be."""


class SourceAway(TryLater):
    """The database of the source does not answer, or ended the connection."""


@asynccontextmanager
async def rows_of_file(path: Path) -> AsyncGenerator[Source]:
    """Rows of a file, by the end of its name: `.csv`, or `.jsonl` and `.ndjson`.

    Yields a way to read it from its beginning, as often as need be.

    Raises:
        SourceUnreadable: no such file, or another kind of one.
    """
    rows = _reader_of(path)

    async def read() -> AsyncGenerator[Found, None]:
        number = 0
        for number, found in enumerate(rows(path), 1):
            if not number % _ROWS_A_TURN:
                await asyncio.sleep(0)
            yield found

    yield read


def _reader_of(path: Path) -> Callable[[Path], Generator[Found]]:
    kinds = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
    if path.suffix.lower() not in kinds:
        raise SourceUnreadable(f"{path} should end in .csv, .jsonl or .ndjson")
    if not path.is_file():
        raise SourceUnreadable(f"{path} is no file that can be read")
    return kinds[path.suffix.lower()]


def _lines(path: Path) -> Generator[tuple[str, bool]]:
    """Each line, and whether all of it came: the rest of one that is too long is passed by."""
    with path.open("rb") as file:
        while line := file.readline(_MAX_LINE_BYTES):
            whole = line.endswith(b"\n") or len(line) < _MAX_LINE_BYTES
            text = line.decode(
                "utf-8-sig" if file.tell() == len(line) else "utf-8", "surrogateescape"
            )
            yield text, whole
            while not whole and line:
                line = file.readline(_MAX_LINE_BYTES)
                whole = line.endswith(b"\n")


def _csv(path: Path) -> Generator[Found]:
    def lines() -> Generator[str]:
        for line, whole in _lines(path):
            # What is too long is over the reader's own limit too, which it says.
            yield line if whole else line + "\n"

    reader = csv.reader(lines(), strict=True)
    try:
        columns = next(reader, None)
    except csv.Error as error:
        raise SourceUnreadable(f"{path}: the line of column names is no CSV: {error}") from error
    if not columns:
        raise SourceUnreadable(f"{path} is empty: its first line should name the columns")
    number = 0
    while True:
        number += 1
        begun = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            yield Found(number, None, f"no CSV: {error}{_taken(begun, reader.line_num)}")
            continue
        if fields is None:
            return
        if not fields:
            number -= 1  # an empty line is no row
        elif len(fields) != len(columns):
            reason = f"{len(fields)} fields, and {len(columns)} columns"
            yield Found(number, None, reason + _taken(begun, reader.line_num))
        else:
            yield _checked(number, dict(zip(columns, fields, strict=True)), "".join(fields))


def _taken(first: int, last: int) -> str:
    # A quote that nobody closed takes the rows that follow along.
    return "" if first == last else f"; it takes up lines {first:,} to {last:,} of the file"


def _jsonl(path: Path) -> Generator[Found]:
    number = 0
    for line, whole in _lines(path):
        if not line.strip():
            continue
        number += 1
        if not whole:
            yield Found(number, None, f"a line of more than {_MAX_LINE_BYTES:,} bytes")
            continue
        try:
            values: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Found(number, None, f"no JSON: {error}")
            continue
        if isinstance(values, dict) and values.keys() == _REJECTED:
            values = cast("dict[str, object]", values)["values"]
        if not isinstance(values, dict):
            yield Found(number, None, "a line should be a JSON object")
        else:
            yield _checked(number, cast("dict[str, Any]", values), line)


def _checked(number: int, values: Mapping[str, Any], text: str) -> Found:
    # What was no UTF-8 came as lone surrogates.
    if not text.isascii() and _NOT_UTF8.search(text):
        return Found(number, None, "not UTF-8")
    return Found(number, values)


@asynccontextmanager
async def rows_of_postgres(dsn: str, query: str) -> AsyncGenerator[Source]:
    """Rows of a SELECT, in one read-only snapshot, however often they are read.

    Raises:
        SourceAway: the database does not answer.
        SourceUnreadable: it refuses us, or the query.
    """
    try:
        connection = await asyncpg.connect(
            dsn, timeout=_CONNECT_S, server_settings={"application_name": "storage-svc import"}
        )
    except (OSError, TimeoutError, asyncpg.CannotConnectNowError) as error:
        raise SourceAway(f"the source's database does not answer: {error}") from error
    except (asyncpg.PostgresError, ValueError) as error:
        raise SourceUnreadable(f"the source's database refuses us: {error}") from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):

            async def read() -> AsyncGenerator[Found, None]:
                try:
                    cursor = connection.cursor(query, prefetch=_PREFETCH, timeout=_FETCH_S)
                    number = 0
                    async for record in cursor:
                        number += 1
                        yield Found(number, {name: _plain(record[name]) for name in record.keys()})  # noqa: SIM118 - a record iterates over its values
                except (asyncpg.ConnectionDoesNotExistError, OSError, TimeoutError) as error:
                    raise SourceAway(f"the source's database went away: {error}") from error
                except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                    raise SourceUnreadable(f"the query cannot be read: {error}") from error

            yield read
    finally:
        await connection.close(timeout=_CONNECT_S)


def _plain(value: object) -> object:
    """Ids that are UUIDs or numerics come as text; all else as it is."""
    return str(value) if isinstance(value, UUID | Decimal) else value
