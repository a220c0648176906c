"""The media made here, on disk under their links until the links die; then they are deleted."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

from velro.sandbox.faults import Faults

if TYPE_CHECKING:
    from pathlib import Path

    from velro.sandbox.settings import SandboxSettings

_SWEEP_EVERY_S = 1.0


class Medium(BaseModel):
    """One file behind one link; what a restart needs to go on serving it.

    Attributes:
        token: the last part of the link, which nobody guesses.
        expires_at: when the link dies, in seconds since 1970.
    """

    model_config = ConfigDict(frozen=True)

    token: str
    request_id: str
    media_type: str
    size_bytes: int
    sha256: str
    expires_at: float
    faults: Faults


@dataclass(slots=True)
class Downloads:
    """What happened to one link."""

    asked: int = 0
    answers: Counter[int] = field(default_factory=Counter[int])


class MediaShelf:
    """Holds media within `max_media_bytes`, the newest of them."""

    def __init__(self, settings: SandboxSettings) -> None:
        self._settings = settings
        self._folder = settings.data / "media"
        self._media: dict[str, Medium] = {}
        self._bytes = 0
        self.downloads: dict[str, Downloads] = {}

    def open(self) -> None:
        """Take up what an earlier run left and whose links still live; delete the rest."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for note in sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            self._hold(Medium.model_validate_json(note.read_bytes()))
        known = {name for token in self._media for name in (token, f"{token}.json")}
        for path in self._folder.iterdir():
            if path.name not in known:
                path.unlink()
        self.sweep()

    def path(self, medium: Medium) -> Path:
        """Where its bytes are."""
        return self._folder / medium.token

    def store(  # noqa: PLR0917 - positional for asyncio.to_thread's sake
        self,
        content: bytes,
        suffix: str,
        media_type: str,
        request_id: str,
        lifetime_s: float,
        faults: Faults,
    ) -> Medium:
        """Write one file and its note. Runs in a thread; `hold` then makes its link live."""
        medium = Medium(
            token=f"{secrets.token_urlsafe(12)}.{suffix}",
            request_id=request_id,
            media_type=media_type,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
            expires_at=time.time() + lifetime_s,
            faults=faults,
        )
        self.path(medium).write_bytes(content)
        self._note(medium.token).write_text(medium.model_dump_json(exclude_unset=True))
        return medium

    def hold(self, medium: Medium) -> None:
        """Serve it from now on, and delete the oldest beyond the bound."""
        self._hold(medium)
        while self._bytes > self._settings.max_media_bytes and len(self._media) > 1:
            self.delete(next(iter(self._media)))

    def find(self, token: str) -> Medium | None:
        """The medium behind a living link."""
        medium = self._media.get(token)
        if medium is not None and medium.expires_at <= time.time():
            self.delete(token)
            return None
        return medium

    def delete(self, token: str) -> None:
        """End a link and delete its bytes. What it counted stays."""
        medium = self._media.pop(token, None)
        if medium is not None:
            self._bytes -= medium.size_bytes
            self.path(medium).unlink(missing_ok=True)
            self._note(token).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Delete whatever has died."""
        now = time.time()
        for token in [medium.token for medium in self._media.values() if medium.expires_at <= now]:
            self.delete(token)

    async def sweep_for_ever(self) -> None:
        """Sweep once a second until cancelled."""
        while True:
            await asyncio.sleep(_SWEEP_EVERY_S)
            self.sweep()

    def note_download(self, token: str) -> int:
        """Count a download; which one of its link it is, from 1."""
        downloads = self.downloads.setdefault(token, Downloads())
        downloads.asked += 1
        return downloads.asked

    def forget_downloads(self, token: str) -> None:
        """Drop the counts of a link whose request is forgotten."""
        self.downloads.pop(token, None)

    def _hold(self, medium: Medium) -> None:
        self._media[medium.token] = medium
        self._bytes += medium.size_bytes

    def _note(self, token: str) -> Path:
        return self._folder / f"{token}.json"
