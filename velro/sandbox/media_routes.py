"""Serves media at their links, honestly or as told."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse, JSONResponse, RedirectResponse, StreamingResponse

from velro.sandbox.connections import Cut, raw_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from velro.sandbox.ledger import Ledger
    from velro.sandbox.media import MediaShelf, Medium
    from velro.sandbox.settings import SandboxSettings

_PAGE = b"<!doctype html><title>Not a picture</title><script>alert(1)</script>"
_SLOW_STEP_S = 0.1


class MediaRoutes:
    """The link of every output: `/files/<token>`. No key is asked for, as at fal."""

    def __init__(self, settings: SandboxSettings, shelf: MediaShelf, ledger: Ledger) -> None:
        self._settings = settings
        self._shelf = shelf
        self._ledger = ledger

    def router(self) -> APIRouter:
        """The one route."""
        router = APIRouter()
        router.add_api_route("/files/{token}", self.download, methods=["GET", "HEAD"])
        return router

    async def download(self, token: str) -> Response:
        """The bytes, in ranges where asked for; after the link's death nothing."""
        medium = self._shelf.find(token)
        if medium is None:
            return self._counted(
                token, JSONResponse({"detail": "Gone"}, self._settings.dead_link_status)
            )
        self._shelf.note_download(token)
        return self._counted(token, await self._answer(medium))

    def _counted(self, token: str, answer: Response) -> Response:
        if (downloads := self._shelf.downloads.get(token)) is not None:
            downloads.answers[answer.status_code] += 1
        return answer

    async def _answer(self, medium: Medium) -> Response:
        faults = medium.faults
        told = (faults.media, faults.media_status, faults.media_type, faults.media_redirect)
        faulty = (*told, faults.media_bytes_per_s) != (None,) * 5
        if not faulty or not self._ledger.strikes("media", medium.token, faults.media_times):
            return self._honest(medium)
        if faults.media_status is not None:
            headers = {"Retry-After": after} if (after := faults.media_retry_after) else None
            return JSONResponse({"detail": "Told to refuse"}, faults.media_status, headers)
        if faults.media_redirect is not None:
            target = faults.media_redirect
            return RedirectResponse(f"/files/{medium.token}" if target == "self" else target, 302)
        if faults.media is not None:
            return await self._spoilt(medium)
        if faults.media_bytes_per_s is not None:
            return self._slow(medium, faults.media_bytes_per_s)
        return self._honest(medium)

    def _honest(self, medium: Medium) -> Response:
        media_type = medium.faults.media_type or medium.media_type
        return FileResponse(self._shelf.path(medium), media_type=media_type)

    async def _spoilt(self, medium: Medium) -> Response:
        media_type = medium.faults.media_type or medium.media_type
        if medium.faults.media == "html":
            return Response(_PAGE, media_type=media_type)
        content = await asyncio.to_thread(self._shelf.path(medium).read_bytes)
        headers = {"content-type": media_type}
        size = len(content)
        if medium.faults.media == "announce_more":
            return Cut(raw_answer(200, headers, content, announced_bytes=size + 1000))
        if medium.faults.media == "announce_less":
            return Cut(raw_answer(200, headers, content, announced_bytes=size // 2))
        return Cut(raw_answer(200, headers, content[: size // 2], announced_bytes=size))

    def _slow(self, medium: Medium, bytes_per_s: float) -> Response:
        async def dribble() -> AsyncIterator[bytes]:
            content = await asyncio.to_thread(self._shelf.path(medium).read_bytes)
            step = max(1, int(bytes_per_s * _SLOW_STEP_S))
            for start in range(0, len(content), step):
                yield content[start : start + step]
                await asyncio.sleep(min(step / bytes_per_s, 60.0))

        headers = {"content-length": str(medium.size_bytes)}
        return StreamingResponse(dribble(), media_type=medium.media_type, headers=headers)
