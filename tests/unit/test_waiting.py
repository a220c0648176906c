"""Whoever waits for a generation that nobody works on is told so."""

from __future__ import annotations

import asyncio
from io import StringIO

import httpx
import pytest
from rich.console import Console

from velro.client import Api
from velro.waiting import Waiting

SOUND = {"parts": {"runner": {"ready": True, "problem": None}}}
BROKEN = {"parts": {"runner": {"ready": False, "problem": "no consumer"}}}


async def told(waiting: Waiting, answer: httpx.Response | None) -> str:
    """What is said when nothing moves, up to the whole of it."""
    out = StringIO()

    def ask(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/readyz"
        if answer is None:
            raise httpx.ConnectError("refused")
        return answer

    transport = httpx.MockTransport(ask)
    async with Api(httpx.AsyncClient(base_url="http://velro.test", transport=transport)) as api:
        telling = asyncio.create_task(waiting.told(api, Console(file=out), still_s=0.01))
        try:
            async with asyncio.timeout(10):
                while "velro show" not in out.getvalue():
                    assert not telling.done()
                    await asyncio.sleep(0)
        finally:
            telling.cancel()
            await asyncio.wait((telling,))
    return out.getvalue()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            httpx.Response(503, json=BROKEN),
            "service is not ready: runner: no consumer",
        ),
        (httpx.Response(200, json=SOUND), "1 queued: the service is at work on others"),
        (None, "does not answer"),
    ],
    ids=["not ready", "queued", "away"],
)
async def test_what_is_going_on_is_told_and_how_to_leave(
    answer: httpx.Response | None, said: str
) -> None:
    waiting = Waiting()
    waiting.saw("g1", "requested")
    waiting.saw("g2", "running")
    waiting.saw("g2", "completed", finished=True)
    text = await told(waiting, answer)
    assert said in text
    assert "for up to 5 minutes; Ctrl-C leaves the request in place" in text
    assert "`velro show g1`" in text
    assert "g2" not in text
