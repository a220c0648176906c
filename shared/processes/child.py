"""A second process of ours: what it shall do comes on its stdin, how far it is goes to its stdout.

It ends when its owner's context does, and by itself when its owner is gone, whatever it is doing
then. What it prints to stderr is kept from the terminal; the last line of it is the reason where
it fails.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import signal
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Final

import structlog
import uvloop

from shared.errors import TryLater, VelroError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Work = Callable[[], Coroutine[object, object, None]]

_LEAVES_WITHIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.5
_LENGTH: Final = struct.Struct("<Q")
# So much of what was given to a child waits in this process; then it is the child's turn.
_MOST_WAITING_BYTES: Final = 2 * 1024 * 1024


class ChildFailed(TryLater):
    """A process of ours ended before its work did, for the reason in the message."""


class OwnerGone(VelroError):
    """Whoever started this process is not there any more, or wants nothing more of it."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running one."""

    _process: asyncio.subprocess.Process
    _said: IO[bytes]

    async def give(self, item: object) -> None:
        """Hand it something; waits while much is waiting already.

        To one that is gone nothing is handed, without a word: `lines` says what became of it.
        """
        assert self._process.stdin is not None
        data = pickle.dumps(item)
        try:
            self._process.stdin.writelines((_LENGTH.pack(len(data)), data))
            await self._process.stdin.drain()
        except ConnectionError:
            return

    def give_no_more(self) -> None:
        """That was all."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """What it tells, until it ends.

        Raises:
            ChildFailed: it did not end well.
        """
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            yield line
        code = await self._process.wait()
        if code < 0:
            raise ChildFailed(f"it was ended by {signal.Signals(-code).name}")
        if code:
            self._said.seek(0)
            said = self._said.read().decode(errors="replace").strip()
            raise ChildFailed(said.rpartition("\n")[2] or f"it ended with code {code}")


@asynccontextmanager
async def child(work: Work) -> AsyncGenerator[Child]:
    """A process that does some work while the context is open.

    Args:
        work: is pickled: a function of a module, or a `functools.partial` of one.
    """
    with tempfile.TemporaryFile() as said:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "shared.processes"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=said,
        )
        try:
            assert process.stdin is not None
            process.stdin.transport.set_write_buffer_limits(_MOST_WAITING_BYTES)
            begun = Child(process, said)
            await begun.give((os.getpid(), work))
            yield begun
        finally:
            await _end(process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_LEAVES_WITHIN_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def run_child() -> None:
    """Do the work that the owner gave, in the process that it started for that."""
    # Ctrl-C reaches every process of a terminal: here it is the owner's to say what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        (length,) = _LENGTH.unpack(_exactly(stdin, _LENGTH.size))
        owner, work = pickle.loads(_exactly(stdin, length))  # noqa: S301 - from our own process
    threading.Thread(target=_end_with, args=(owner,), name="owner", daemon=True).start()
    try:
        uvloop.run(work())
    except VelroError as error:
        sys.exit(str(error))


def tell(number: int) -> None:
    """Tell the owner how far the work is."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


async def given() -> AsyncGenerator[object, None]:
    """What the owner hands over after the work itself, until that was all."""
    reader = asyncio.StreamReader(limit=_MOST_WAITING_BYTES)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
    )
    try:
        while True:
            try:
                (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                data = await reader.readexactly(length)
            except asyncio.IncompleteReadError as error:
                if error.partial:
                    raise OwnerGone("the owner of this process broke off") from error
                return
            yield pickle.loads(data)  # noqa: S301 - from our own process
    finally:
        transport.close()


def _exactly(stdin: IO[bytes], length: int) -> bytes:
    """Not a byte more: the rest is read elsewhere."""
    data = b""
    while len(data) < length:
        more = stdin.read(length - len(data))
        if not more:
            raise SystemExit("nothing was given to do")
        data += more
    return data


def _end_with(owner: int) -> None:
    while os.getppid() == owner:
        time.sleep(_LOOK_EVERY_S)
    # Whatever holds the other threads: nobody is left to be told of it.
    os._exit(1)
