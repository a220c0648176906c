"""A database that does not answer is named: what its driver raises then often has no text."""

from __future__ import annotations

import asyncpg
import pytest

from shared.postgres.connecting import away


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (TimeoutError(), "Postgres is away: TimeoutError: no answer in time"),
        (
            asyncpg.exceptions.DiskFullError("no room\nDETAIL:  left"),
            "Postgres is away: DiskFullError: no room DETAIL: left",
        ),
    ],
)
def test_it_is_told_in_one_line_whose_error_it_is(error: Exception, told: str) -> None:
    assert away(error) == told
