"""Errors as people read them."""

from __future__ import annotations

import asyncio

import pytest

from shared.errors import TryLater, in_words


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TryLater("the bucket is away"), "TryLater: the bucket is away"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (ConnectionResetError(), "ConnectionResetError: the connection was cut"),
        (RuntimeError(), "RuntimeError"),
    ],
)
def test_an_error_is_said_with_its_type_and_text_or_with_what_its_type_means(
    error: Exception, words: str
) -> None:
    assert in_words(error) == words


async def test_a_deadline_that_passed_says_so() -> None:
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    assert in_words(raised.value) == "TimeoutError: no answer in time"
