"""Where downloads lie until they are stored: a bounded directory that cleans up after the dead."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import uuid
from typing import TYPE_CHECKING, Self

import structlog

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

log = structlog.get_logger()

_PREFIX = "velro-"
_LOCK = "lock"


class Spool:
    """One process's own corner of the spool directory.

    Its lock file is locked as long as the process lives, however it ends: what lies in a corner
    whose lock can be taken was left by a process that was killed, and is removed.

    Args:
        directory: shared by all processes of this machine.
        max_bytes: how much may lie in this corner at once.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._budget = ByteBudget(max_bytes)
        self._corner = directory / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()
        self._corner.mkdir(mode=0o700)
        self._lock = os.open(self._corner / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._corner, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextlib.asynccontextmanager
    async def room(self, size_bytes: int) -> AsyncGenerator[Path]:
        """A path for a file of at most so many bytes, which is gone afterwards.

        Waits while the budget is taken by others.
        """
        async with self._budget.taken(size_bytes):
            path = self._corner / uuid.uuid4().hex
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        for corner in self._directory.glob(f"{_PREFIX}*"):
            with _taken(corner / _LOCK) as dead:
                if dead:
                    log.info("spool_swept", left_by=corner.name)
                    shutil.rmtree(corner, ignore_errors=True)


class ByteBudget:
    """So many bytes, shared first come, first served. A wish beyond all of it gets all of it."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._free = max_bytes
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None]:
        """Take that much, waiting until it is free; given back at the end."""
        size_bytes = min(size_bytes, self._max)
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= size_bytes)
            self._free -= size_bytes
        try:
            yield
        finally:
            self._free += size_bytes
            async with self._changed:
                self._changed.notify_all()


@contextlib.contextmanager
def _taken(lock: Path) -> Generator[bool]:
    """Whether nobody alive holds this lock."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except FileNotFoundError:
        yield False  # being made right now, or being removed
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(descriptor)
