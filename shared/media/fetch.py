"""Downloads under guard: bounded in bytes and time, resumed where it can be, hashed on the way."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, Self

from yarl import URL

from shared.contracts.reasons import ReasonCode
from shared.http11.errors import Cut, HttpFailed, Silent
from shared.http11.pool import HttpPool, Origin
from shared.media.copying import CopyFailed
from shared.media.guard import Blocked, CheckedResolver, Guard
from shared.media.transfer import Broken, Transfer

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from aiohttp.abc import AbstractResolver

    from shared.http11.answer import Answer
    from shared.media.settings import MediaSettings
    from shared.media.sniff import MediaKind
    from shared.media.spool import Spool
    from shared.object_store.port import Held

MAX_REDIRECTS: Final = 3
# Answers asked for in one fetch, the first one and those after a break.
MAX_ANSWERS: Final = 6
FIRST_PAUSE_S: Final = 0.05
# What a file gets in the spool at first when the source does not say how large it is.
UNKNOWN_SIZE_BYTES: Final = 8 * 1024 * 1024
CONNECT_WITHIN_S: Final = 10.0
_ASKING: Final = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "velro"}


@dataclass(frozen=True, slots=True)
class Credentials:
    """A header that is sent to one origin and to no other."""

    origin: URL
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MediaSource:
    """A link, and all that is known of it.

    Attributes:
        media_type: what the provider says that it is; decides only whether JSON is expected.
        budget_s: how long the download may take, beside the settings' own limit.
        as_is: take it whatever it is.
    """

    url: str
    provider: str
    media_type: str | None = None
    budget_s: float | None = None
    as_is: bool = False
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class Spooled:
    """A complete file in the spool, or held in memory where it is small."""

    path: Path | Held
    size_bytes: int
    sha256: str
    crc32s: tuple[int, ...]
    kind: MediaKind
    source_host: str


class MediaFetcher:
    """Fetches files from links that nobody vouches for.

    Use as an async context manager. Its connections take no proxy from the environment, keep no
    cookies, follow no redirect by themselves and decompress nothing.
    """

    def __init__(
        self,
        settings: MediaSettings,
        spool: Spool,
        *,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
        max_connections: int = 256,
    ) -> None:
        self._settings = settings
        self._guard = Guard.of(settings)
        self._spool = spool
        self._pool = HttpPool(
            max_connections=max_connections,
            connect_within_s=CONNECT_WITHIN_S,
            silence_s=settings.media_window_s,
            resolver=CheckedResolver(self._guard, resolver),
            tls=tls,
        )

    async def __aenter__(self) -> Self:
        await self._pool.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._pool.__aexit__()

    @contextlib.asynccontextmanager
    async def fetched(self, source: MediaSource) -> AsyncGenerator[Spooled]:
        """The file behind a link, in the spool as long as the block lasts.

        Raises:
            CopyFailed: with the reason; `Blocked` where the guard refuses, `MediaTypeRefused`
                where the bytes are no media.
        """
        first = self._guard.checked(source.url, provider=source.provider)
        timeout_s = self._settings.media_timeout_s
        if source.budget_s is not None:
            timeout_s = min(timeout_s, source.budget_s)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(timeout_s):
                    spooled = await self._fetch(first, source, stack)
            except TimeoutError as error:
                detail = f"not downloaded within {timeout_s:,.1f} s"
                raise CopyFailed(ReasonCode.TOO_SLOW, detail) from error
            yield spooled

    async def _fetch(
        self, first: URL, source: MediaSource, stack: contextlib.AsyncExitStack
    ) -> Spooled:
        transfer: Transfer | None = None
        unconfirmed: str | None = None
        why = ""
        for number in range(MAX_ANSWERS):
            if number:
                await asyncio.sleep(FIRST_PAUSE_S * 2**number)
            try:
                async with self._answer(first, source, transfer) as answer:
                    if transfer is None:
                        transfer = await self._begun(answer, source, stack)
                    await transfer.receive(answer)
            except (Broken, HttpFailed) as error:
                why = str(error)
                if transfer is None and not _may_come(error):
                    detail = f"{first.host} gave no answer: {why}"
                    raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail) from error
            else:
                sha256 = transfer.hashes.sha256()
                if not transfer.ends_by_closing or sha256 == unconfirmed:
                    return _spooled(transfer, sha256, first)
                # Cut or complete, it looks the same: believed when it comes twice.
                unconfirmed, why = sha256, "where the file ends is not said"
                transfer.restart()
        detail = f"{first.host} did not send the file in {MAX_ANSWERS} answers, at last: {why}"
        raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail)

    async def _begun(
        self,
        answer: Answer,
        source: MediaSource,
        stack: contextlib.AsyncExitStack,
    ) -> Transfer:
        size_bytes = answer.length
        if size_bytes is None:
            size_bytes = UNKNOWN_SIZE_BYTES
        # Nothing is larger than the limit, whatever is announced: then it is refused.
        size_bytes = min(size_bytes, self._settings.media_max_bytes)
        room = self._spool.room(size_bytes, within_s=self._settings.media_timeout_s / 2)
        return Transfer(
            await stack.enter_async_context(room), self._settings, source.media_type, source.as_is
        )

    @contextlib.asynccontextmanager
    async def _answer(
        self, url: URL, source: MediaSource, transfer: Transfer | None
    ) -> AsyncGenerator[Answer]:
        """The answer at the end of at most three redirects, each checked like the first URL."""
        for _ in range(MAX_REDIRECTS + 1):
            headers = _ASKING | (transfer.resume_headers() if transfer else {})
            if source.credentials is not None and source.credentials.origin == url.origin():
                headers |= source.credentials.headers
            origin = Origin(url.scheme, url.raw_host or "", url.port or 0)
            asked = self._pool.exchange("GET", origin, url.raw_path_qs, headers)
            async with asked as answer:
                if answer.status not in {301, 302, 303, 307, 308}:
                    _judge(answer, transfer)
                    yield answer
                    return
                location = answer.headers.get("location", "")
            url = self._guard.checked(
                _joined(url, location), provider=source.provider, came_from=url
            )
        detail = f"more than {MAX_REDIRECTS} redirects"
        raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail)


def _may_come(error: Exception) -> bool:
    """Whether an answer that did not come may come when it is asked for again."""
    return isinstance(error, Broken) or (isinstance(error, Cut) and not isinstance(error, Silent))


def _joined(url: URL, location: str) -> str:
    try:
        return str(url.join(URL(location, encoded=True)))
    except ValueError as error:
        raise Blocked(f"{url.host} redirects to what is no URL: {error}") from error


def _judge(answer: Answer, transfer: Transfer | None) -> None:
    """Raise for an answer that holds no media."""
    match answer.status:
        case 200 | 206:
            encoding = answer.headers.get("content-encoding", "identity").strip().lower()
            if encoding not in {"", "identity"}:
                detail = f"the bytes are encoded as {encoding}, which was not asked for"
                raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail)
        case 416 if transfer is not None and transfer.received:
            transfer.restart()
            raise Broken("the source has no bytes where the rest should be")
        case 404 | 410:
            raise CopyFailed(ReasonCode.SOURCE_EXPIRED, f"the link is dead ({answer.status})")
        case 401 | 403:
            raise CopyFailed(ReasonCode.SOURCE_FORBIDDEN, f"the link refuses ({answer.status})")
        case status:
            raise CopyFailed(
                ReasonCode.SOURCE_UNAVAILABLE,
                f"the source answers with {status}",
                retry_after_s=_retry_after_s(answer.headers.get("retry-after")),
            )


def _spooled(transfer: Transfer, sha256: str, first: URL) -> Spooled:
    assert transfer.kind is not None, "a transfer that is complete is known"
    return Spooled(
        path=transfer.content(),
        size_bytes=transfer.received,
        sha256=sha256,
        crc32s=transfer.hashes.crc32s(),
        kind=transfer.kind,
        source_host=first.raw_host or "",
    )


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from now, from either form of Retry-After (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None  # neither form: as if nothing had been said
    # A date that names no zone is in GMT, as all of them should be.
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
