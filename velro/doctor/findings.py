"""What a check comes to, and how checks are run: all at once, each with a deadline."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import asyncpg
import httpx
from nats.errors import Error as NatsError

from shared.errors import VelroError
from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, NoAnswer
from shared.event_log.port import LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

Opened = TypeVar("Opened")

_FAILURES: Final = (
    VelroError,
    NatsError,
    NoAnswer,
    ApiError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    httpx.HTTPError,
    OSError,  # TimeoutError is one
)
"""What a part that does not answer as it should looks like."""


class Level(StrEnum):
    """How bad it is."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found.

    Attributes:
        check: its name.
        found: what is so, in a sentence.
        advice: what to do; empty where all is well.
    """

    check: str
    level: Level
    found: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check says; its name is added by whoever ran it."""

    level: Level
    found: str
    advice: str = ""


def green(found: str) -> Verdict:
    """All is well."""
    return Verdict(Level.GREEN, found)


def yellow(found: str, advice: str) -> Verdict:
    """It may go wrong, or nobody can tell."""
    return Verdict(Level.YELLOW, found, advice)


def red(found: str, advice: str) -> Verdict:
    """It is wrong: something may be lost, or stands still."""
    return Verdict(Level.RED, found, advice)


@dataclass(frozen=True, slots=True)
class Part(Generic[Opened]):
    """A part of the installation, and what is checked of it.

    Attributes:
        name: the name of its checks begins so.
        opened: a connection to it, or whatever its checks need.
        checks: by name.
        advice: what to do where it cannot be opened.
    """

    name: str
    opened: Callable[[], AbstractAsyncContextManager[Opened]]
    checks: Mapping[str, Callable[[Opened], Awaitable[Verdict]]]
    advice: str

    async def examined(self, *, deadline_s: float) -> list[Finding]:
        """Every check's finding; one red finding where the part does not answer at all."""
        try:
            async with asyncio.timeout(3 * deadline_s), self.opened() as opened:
                return list(
                    await asyncio.gather(
                        *(
                            self._checked(name, check, opened, deadline_s)
                            for name, check in self.checks.items()
                        )
                    )
                )
        except _FAILURES as error:
            advice = _advice(error, self.advice)
            return [Finding(self.name, Level.RED, f"no answer: {_sentence(error)}", advice)]

    async def _checked(
        self,
        name: str,
        check: Callable[[Opened], Awaitable[Verdict]],
        opened: Opened,
        deadline_s: float,
    ) -> Finding:
        full = f"{self.name}: {name}"
        try:
            async with asyncio.timeout(deadline_s):
                verdict = await check(opened)
        except TimeoutError:
            return Finding(full, Level.RED, f"no answer within {deadline_s:g} s", self.advice)
        except _FAILURES as error:
            return Finding(full, Level.RED, _sentence(error), _advice(error, self.advice))
        return Finding(full, verdict.level, verdict.found, verdict.advice)


async def examine(parts: Sequence[Part[object]], *, deadline_s: float) -> list[Finding]:
    """All findings, in the order of the parts; everything is asked at once."""
    found = await asyncio.gather(*(part.examined(deadline_s=deadline_s) for part in parts))
    return [finding for findings in found for finding in findings]


def worst(findings: Sequence[Finding]) -> Level:
    """The level of the whole."""
    levels = {finding.level for finding in findings}
    return next((level for level in (Level.RED, Level.YELLOW) if level in levels), Level.GREEN)


def _advice(error: BaseException, otherwise: str) -> str:
    """What to do; without a stream there is one thing alone, and a replay would make it worse."""
    cause = error.__cause__ if isinstance(error, LogUnavailable) else error
    if isinstance(cause, ApiError) and cause.err_code == STREAM_NOT_FOUND:
        return "nothing here, before there is a stream again: see `nats: stream`"
    return otherwise


def _sentence(error: BaseException) -> str:
    return f"{error}" or type(error).__name__
