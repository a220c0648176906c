"""Requests to the log's server, and the moment in which one is given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from shared.event_log.jetstream_api import request

if TYPE_CHECKING:
    from nats.aio.client import Client


class AnsweredByHand:
    """Waits for its answer as nats-py does."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def request(
        self,
        _subject: str,
        _data: bytes,
        timeout: float,  # noqa: ASYNC109 - as nats-py calls it
        headers: dict[str, str] | None,
    ) -> bytes:
        assert headers is None
        return await asyncio.wait_for(self.answer, timeout)


async def test_a_reader_given_up_as_its_answer_comes_does_not_read_on() -> None:
    server = AnsweredByHand()
    asked = asyncio.create_task(
        request(cast("Client", server), "$JS.API.INFO", b"", timeout_s=30), name="asked"
    )
    await asyncio.sleep(0)  # it has sent its question
    server.answer.set_result(b"{}")
    await asyncio.sleep(0)  # the answer is there, and has not been looked at
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_what_was_cancelled_before_may_still_ask() -> None:
    server = AnsweredByHand()
    server.answer.set_result(b"{}")
    answers: list[object] = []

    async def cleaning_up() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            answers.append(
                await request(cast("Client", server), "$JS.API.CONSUMER.DELETE", b"", timeout_s=30)
            )

    task = asyncio.create_task(cleaning_up())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answers == [b"{}"]
