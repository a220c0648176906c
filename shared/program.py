"""What every program of Velro does alike: its log lines, its signals, its exit codes."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import sqlite3
import sys
import tempfile
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import typer
import uvloop

from shared.errors import TryLater, VelroError, in_words
from shared.settings import AnySettings, BadSettings, loaded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Generator

EXIT_REFUSED: Final = 2
EXIT_TRY_LATER: Final = 4
STARTING_S: Final = 60.0
"""How long a server may take until it answers."""
_AGAIN_S: Final = 1.0

Result = TypeVar("Result")

_log = structlog.get_logger(__name__)


def configure_logging(least: int = logging.INFO) -> None:
    """One line of JSON a happening, on stderr: what a program prints is its result.

    Args:
        least: the level below which nothing is said.
    """
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(least),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def settings_of(kind: type[AnySettings]) -> AnySettings:
    """The settings that the environment holds; the program ends where they are wrong."""
    try:
        return loaded(kind)
    except BadSettings as error:
        typer.echo(str(error), err=True)
        typer.echo(
            'settings are variables (README); beside `velro up`: eval "$(velro env)"', err=True
        )
        raise typer.Exit(EXIT_REFUSED) from error


def run(program: Coroutine[object, object, Result]) -> Result:
    """Run a program to its end; an error of ours is a sentence and an exit code."""
    try:
        return uvloop.run(program)
    except VelroError as error:
        raise ended_by(error) from error
    except ExceptionGroup as group:
        # Tasks that ran side by side and met the same wall: one sentence is enough.
        ours, others = group.split(VelroError)
        if ours is None or others is not None:
            raise
        raise ended_by(_first(ours)) from group


def write_nowhere() -> None:
    """Drop what is left to be printed: the interpreter would complain of it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def telling_of_full_disks() -> Generator[None]:
    """A disk without room for what a command writes becomes a sentence and an exit code.

    Raises:
        SystemExit: in place of the error; where nobody reads any more, without a sentence.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_FULL:
            raise
        told = f"what is kept aside meanwhile finds no room in {tempfile.gettempdir()}: {error}"
        typer.echo(f"{told}; TMPDIR names another place", err=True)
        raise SystemExit(EXIT_TRY_LATER) from error
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EPIPE}:
            raise
        write_nowhere()
        if error.errno == errno.EPIPE:
            raise SystemExit(1) from error
        typer.echo(f"what is to be written finds no room: {error}", err=True)
        raise SystemExit(EXIT_TRY_LATER) from error


def ended_by(error: VelroError) -> typer.Exit:
    """Say an error of ours in a sentence; the exit that says whether trying again may help."""
    typer.echo(str(error), err=True)
    return typer.Exit(EXIT_TRY_LATER if isinstance(error, TryLater) else EXIT_REFUSED)


def _first(group: ExceptionGroup[VelroError]) -> VelroError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error


async def when_ready(
    attempt: Callable[[], Awaitable[None]], *, patience_s: Callable[[Exception], float]
) -> None:
    """Try until it succeeds: the servers that it takes may be starting. Says what it waits for.

    Args:
        attempt: what to try, about once a second.
        patience_s: for how long waiting may help against an error of this kind; 0: not at all.

    Raises:
        Exception: what the last attempt did, when patience is over.
    """
    since: dict[type[Exception], float] = {}
    told = ""
    while True:
        try:
            return await attempt()
        except Exception as error:
            patience, now = patience_s(error), asyncio.get_running_loop().time()
            if now >= since.setdefault(type(error), now) + patience:
                raise
            if (why := in_words(error)) != told:
                typer.echo(f"waiting, {patience:.0f} s at most: {why}", err=True)
                told = why
        await asyncio.sleep(_AGAIN_S)


def on_signals(stop: Callable[[], None]) -> None:
    """SIGTERM and SIGINT ask once; a person's second SIGINT is not waited for.

    More SIGTERMs change nothing: two supervisors may ask, as `velro down` and the `velro up` that
    sees a service end, and what is being drained is drained all the same.
    """
    loop = asyncio.get_running_loop()
    stopping = False

    def ask(number: signal.Signals) -> None:
        nonlocal stopping
        if number is signal.SIGINT:
            loop.remove_signal_handler(number)
        if not stopping:
            stopping = True
            _log.info("stopping", signal=number.name)
            stop()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, partial(ask, number))
