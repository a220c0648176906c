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

from shared.contracts.reasons import ReasonCode
from shared.media.budget import ByteBudget, OthersGrow, Share
from shared.media.copying import CopyFailed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

log = structlog.get_logger()

_PREFIX = "velro-"
_LOCK = ".lock"


class SpoolFull(CopyFailed):
    """Other downloads held the room for too long."""

    def __init__(self, size_bytes: int, within_s: float) -> None:
        detail = f"no room for {size_bytes:,} bytes in the spool within {within_s:,.1f} s"
        super().__init__(ReasonCode.INTERNAL, f"{detail} (VELRO_SPOOL_MAX_BYTES)")


class Room:
    """A place for one file in the spool."""

    def __init__(self, corner: Path, share: Share, *, within_s: float) -> None:
        self._corner = corner
        self._share = share
        self._within_s = within_s
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """Of the file."""
        if self._path is None:
            self._path = self._corner / uuid.uuid4().hex
        return self._path

    def clear(self) -> None:
        """Remove the file, if there was to be one: what is held in memory never asks for a path."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    @property
    def size_bytes(self) -> int:
        """How large the file may become."""
        return self._share.size_bytes

    async def grow(self, size_bytes: int) -> None:
        """Let the file become that large; waits while the budget is taken by others.

        Raises:
            SpoolFull: it still was after a while, or another file waits to grow.
        """
        try:
            async with asyncio.timeout(self._within_s):
                await self._share.grow(size_bytes)
        except (TimeoutError, OthersGrow) as error:
            raise SpoolFull(size_bytes, self._within_s) from error


class Spool:
    """One process's own corner of the spool directory.

    Beside a corner lies its lock, made before it and removed after it, and locked as long as the
    process lives, however it ends: a lock that can be taken was left by a process that was killed,
    and it and its corner are removed.

    Args:
        directory: shared by all processes of this machine and user.
        max_bytes: how much may lie in this corner at once.
    """

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._budget = ByteBudget(max_bytes)
        self._corner: Path | None = None
        self._lock: int | None = None

    def __enter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()
        self._corner, self._lock = self._own_corner()
        self._corner.mkdir(mode=0o700)
        return self

    def __exit__(self, *_: object) -> None:
        if self._corner is None or self._lock is None:
            return
        shutil.rmtree(self._corner, ignore_errors=True)
        _lock_of(self._corner).unlink(missing_ok=True)
        os.close(self._lock)
        self._corner = self._lock = None

    @contextlib.asynccontextmanager
    async def room(self, size_bytes: int, *, within_s: float) -> AsyncGenerator[Room]:
        """A place for a file of so many bytes, which is gone afterwards.

        Waits while the budget is taken by others.

        Raises:
            SpoolFull: it still was after so long.
        """
        assert self._corner is not None, "the spool is used as a context manager"
        try:
            async with asyncio.timeout(within_s):
                share = await self._budget.take(size_bytes)
        except TimeoutError as error:
            raise SpoolFull(size_bytes, within_s) from error
        with share:
            room = Room(self._corner, share, within_s=within_s)
            try:
                yield room
            finally:
                room.clear()

    def _own_corner(self) -> tuple[Path, int]:
        """A corner's path and its lock, taken."""
        while True:
            corner = self._directory / f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex[:8]}"
            descriptor = os.open(_lock_of(corner), os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(descriptor), _lock_of(corner).stat()):
                    return corner, descriptor
            # Another process swept it between the making and the locking.
            os.close(descriptor)

    def _sweep(self) -> None:
        for lock_path in self._directory.glob(f"{_PREFIX}*{_LOCK}"):
            try:
                descriptor = os.open(lock_path, os.O_RDWR)
            except FileNotFoundError:
                continue  # its process ended meanwhile, or another one swept it
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # its process lives
            else:
                corner = lock_path.with_name(lock_path.name.removesuffix(_LOCK))
                log.info("spool_swept", left_by=corner.name)
                shutil.rmtree(corner, ignore_errors=True)
                lock_path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


def _lock_of(corner: Path) -> Path:
    return corner.with_name(corner.name + _LOCK)
