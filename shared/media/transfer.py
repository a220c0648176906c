"""One file on its way into the spool, through as many answers as it takes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Final

from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed
from shared.media.hashes import Hashes
from shared.media.sniff import HEAD_BYTES, OPAQUE, MediaKind, sniff
from shared.media.spool_file import SpoolFile
from shared.object_store.port import Held

if TYPE_CHECKING:
    from pathlib import Path

    from shared.http11.answer import Answer
    from shared.media.settings import MediaSettings
    from shared.media.spool import Room

# Up to here a file is held in memory, and from here on written in pieces of this size.
HELD_BYTES: Final = 1024 * 1024
_PARTIAL: Final = 206
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]+)-([0-9]+)/([0-9]+|\*)")


class Broken(Exception):
    """What came is not the whole file, or not what was asked for: worth asking again."""


@dataclass(slots=True)
class Transfer:
    """How far a download is: what came, and what it is a part of.

    What is small stays in memory and never is a file. The rest is written in a thread, a piece at a
    time, while more of it comes and is hashed.

    Attributes:
        room: where the bytes go. It grows with a file whose size is not known.
        announced_type: what the provider called it.
        as_is: whether it is taken whatever it is.
        received: how many are there.
        total: how many there are in all, where the source says it.
        validator: a strong ETag: what tells whether a later answer is of the same file.
        kind: what the file is, known once its head has come.
        ends_by_closing: whether the source said neither a length nor where the body ends, so that
            a cut looks like the end.
        hashes: of what came so far.
    """

    room: Room
    settings: MediaSettings
    announced_type: str | None
    as_is: bool = False
    received: int = 0
    total: int | None = None
    validator: str | None = None
    kind: MediaKind | None = None
    ends_by_closing: bool = False
    hashes: Hashes = field(default_factory=Hashes)
    _head: bytearray = field(default_factory=bytearray)
    # What is not written yet: all of it, until it is too much to be held.
    _held: bytearray = field(default_factory=bytearray)
    _filled: int = 0
    _file: SpoolFile | None = None
    _on_disk: bool = False

    def restart(self) -> None:
        """Forget what came."""
        self.hashes, self._head = Hashes(), bytearray()
        self._held, self._filled, self._on_disk = bytearray(), 0, False
        self.received, self.total, self.validator, self.kind = 0, None, None, None

    def content(self) -> Path | Held:
        """What came so far: the room's file, or what is held in its place."""
        if self._on_disk:
            return self.room.path
        return Held(memoryview(self._held)[: self._filled])

    def resume_headers(self) -> dict[str, str]:
        """What asks for the rest alone, where that is possible."""
        if not self.received or self.validator is None:
            return {}
        # If-Range: a source whose file has changed meanwhile sends all of it (RFC 9110, 13.1.5).
        return {"Range": f"bytes={self.received}-", "If-Range": self.validator}

    async def receive(self, answer: Answer) -> None:
        """Append the body to what came, or begin anew where the source cannot go on.

        Raises:
            Broken: it ended too soon or too late, or is not the part that was asked for.
            CopyFailed: it is too large, too slow, or no media.
        """
        await self._begin(answer)
        try:
            await self._append(answer)
        finally:
            # What broke off is gone on with from here.
            await self._all_written()
        if answer.overran or (self.total is not None and self.received > self.total):
            # HTTP ends a body at its announced length (RFC 9112, 6.3), and what stands after it is
            # no answer: who sends that has announced the wrong length, and the file goes on.
            detail = f"more came than the {self.total or 0:,} bytes that were announced"
            self.restart()
            raise Broken(detail)
        if self.total is not None and self.received != self.total:
            raise Broken(f"{self.received:,} of {self.total:,} bytes came")
        if not self.received:
            raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, "the source sends an empty file")
        if self.kind is None:
            self._know()

    async def _begin(self, answer: Answer) -> None:
        if answer.status == _PARTIAL:
            self._continue(answer)
        else:
            self.restart()
            self.total = answer.length
            self.validator = _strong_validator(answer)
        self.ends_by_closing = answer.ends_by_closing
        if (self.total or 0) > self.limit_bytes():
            raise self._too_large(f"{self.total:,} bytes are announced")
        await self.room.grow(self.total or 0)

    def _continue(self, answer: Answer) -> None:
        """See that a part begins where ours ends, of the same file, and reaches to its end."""
        said = answer.headers.get("content-range", "")
        part = _CONTENT_RANGE.fullmatch(said.strip())
        first, last, total = (part[1], part[2], part[3]) if part else ("", "", "")
        etag = answer.headers.get("etag", self.validator)
        fits = (
            self.received > 0
            and first == str(self.received)
            and total in {"*", str(self.total), str(int(last or 0) + 1)}
            and (self.total is None or int(last) + 1 == self.total)
            and etag == self.validator
        )
        if not fits:
            received = self.received
            self.restart()
            raise Broken(f"bytes from {received:,} on were due, and {said!r} came")
        self.total = int(last) + 1

    async def _append(self, answer: Answer) -> None:
        pace = _Pace(self.settings)
        while came := await answer.read_into(self._place()):
            self.received += came
            if self.received > self.limit_bytes():
                raise self._too_large("more bytes came than are allowed")
            if self.received > self.room.size_bytes:
                await self.room.grow(min(2 * self.received, self.limit_bytes()))
            await self._keep(came)
            if self.total is not None and self.received > self.total:
                return
            pace.came(came)

    def _place(self) -> memoryview:
        """Where the next bytes go: room for one at least."""
        if not self._held:
            size = HELD_BYTES
            if self.total is not None and not self._on_disk:
                # One byte more than is to come: what is longer than it says is seen.
                size = min(size, self.total + 1)
            self._held = bytearray(size)
        return memoryview(self._held)[self._filled :]

    async def _keep(self, came: int) -> None:
        end = self._filled + came
        with memoryview(self._held)[self._filled : end] as chunk:
            # At once, while the processor has it at hand.
            self.hashes.update(chunk)
            if self.kind is None:
                self._head += chunk[: HEAD_BYTES - len(self._head)]
        self._filled = end
        if self._filled >= HELD_BYTES:
            held, self._filled = self._filled, 0
            self._held = await self._opened().append(self._held, held)
        if self.kind is None and len(self._head) >= HEAD_BYTES:
            self._know()

    def _opened(self) -> SpoolFile:
        if self._file is None:
            self._file = SpoolFile(self.room.path, anew=not self._on_disk)
            self._on_disk = True
        return self._file

    async def _all_written(self) -> None:
        if not self._on_disk:
            return
        file = self._opened()
        try:
            if self._filled:
                held, self._filled = self._filled, 0
                await file.append(self._held, held)
        finally:
            self._held, self._file = bytearray(), None
            await file.close()

    def _know(self) -> None:
        """Find out what the file is: the rest of what is no media need not come."""
        if self.as_is:
            self.kind = OPAQUE
        else:
            self.kind = sniff(bytes(self._head[:HEAD_BYTES]), announced=self.announced_type)
        self._head.clear()
        if (self.total or 0) > self.limit_bytes():
            raise self._too_large(f"{self.total:,} bytes are announced")

    def limit_bytes(self) -> int:
        """How many bytes may come, by what is known of the file."""
        if self.kind is None or self.kind is OPAQUE:
            return self.settings.media_max_bytes
        return self.settings.max_bytes_of(self.kind.family)

    def _too_large(self, what: str) -> CopyFailed:
        kind = self.kind.media_type if self.kind else "a file"
        limit = f"the limit for {kind} is {self.limit_bytes():,} bytes"
        return CopyFailed(ReasonCode.TOO_LARGE, f"{what}; {limit} (VELRO_MEDIA_MAX_BYTES, …_OF)")


class _Pace:
    """Sees that a source sends fast enough, over one window after the other."""

    def __init__(self, settings: MediaSettings) -> None:
        self._window_s = settings.media_window_s
        self._least = settings.media_min_bytes_per_s
        self._at, self._bytes = monotonic(), 0

    def came(self, size_bytes: int) -> None:
        """So much more came.

        Raises:
            CopyFailed: too little in a whole window.
        """
        self._bytes += size_bytes
        if (passed_s := monotonic() - self._at) <= self._window_s:
            return
        if self._bytes / passed_s < self._least:
            pace = f"{self._bytes / passed_s:,.0f} bytes/s over {passed_s:.0f} s"
            raise CopyFailed(ReasonCode.TOO_SLOW, f"{pace} is too slow")
        self._at, self._bytes = monotonic(), 0


def _strong_validator(answer: Answer) -> str | None:
    etag = answer.headers.get("etag")
    return etag if etag and not etag.startswith("W/") else None
