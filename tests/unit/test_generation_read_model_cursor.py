"""A page's cursor is a text without meaning that leads back to where the page ended."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_svc.read_model.queries import BadCursor, Cursor


@given(
    st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])),
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
)
def test_a_cursor_is_read_as_it_was_written(at: datetime, generation_id: str) -> None:
    cursor = Cursor(at, generation_id)
    assert Cursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "",
        "!",
        "a",
        "é",
        base64.urlsafe_b64encode(b"2026-01-01T00:00:00 g").decode(),
        base64.urlsafe_b64encode(b"2026-01-01T00:00:00+00:00 ").decode(),
        base64.urlsafe_b64encode(b"2026-01-01T00:00:00+00:00 a\0").decode(),
        base64.urlsafe_b64encode(b"\xff\xff").decode(),
    ],
)
def test_what_no_page_was_answered_with_is_refused(text: str) -> None:
    with pytest.raises(BadCursor):
        Cursor.parse(text)


@given(st.text())
def test_no_text_does_anything_but_be_read_or_be_refused(text: str) -> None:
    try:
        Cursor.parse(text)
    except BadCursor:
        return
