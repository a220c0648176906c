"""Downloads under guard: bounded in bytes and time, resumed where it can be, hashed on the way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from time import monotonic
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol, Self

import aiohttp

from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed
from shared.media.guard import CheckedResolver, Guard

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from pathlib import Path

    from aiohttp.abc import AbstractResolver
    from yarl import URL

    from shared.media.settings import MediaSettings
    from shared.media.spool import Spool

MAX_REDIRECTS: Final = 3
# Connections that break in the middle, in one fetch, before it counts as failed.
MAX_BREAKS: Final = 4
CHUNK_BYTES: Final = 512 * 1024
PACE_WINDOW_S: Final = 10.0


class Digest(Protocol):
    """What hashlib's objects do."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes in."""
        ...

    def hexdigest(self) -> str:
        """What all bytes so far come to."""
        ...


@dataclass(frozen=True, slots=True)
class Credentials:
    """A header that is sent to one origin and to no other."""

    origin: URL
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file in the spool."""

    path: Path
    size_bytes: int
    sha256: str
    source_host: str


@dataclass(slots=True)
class _Transfer:
    """How far a download is: what the file holds, and what it is a part of."""

    path: Path
    digest: Digest = field(default_factory=hashlib.sha256)
    received: int = 0
    announced: int | None = None
    validator: str | None = None

    def restart(self) -> None:
        self.digest, self.received, self.announced = hashlib.sha256(), 0, None


class _Broken(Exception):
    """The connection ended before the body did."""


class MediaFetcher:
    """Fetches one file at a time from links that nobody vouches for.

    Use as an async context manager. The HTTP client takes no proxy from the environment, keeps
    no cookies, follows no redirect by itself and decompresses nothing.
    """

    def __init__(
        self,
        settings: MediaSettings,
        spool: Spool,
        *,
        resolver: AbstractResolver | None = None,
        max_connections: int = 256,
    ) -> None:
        self._settings = settings
        self._guard = Guard.of(settings)
        self._spool = spool
        self._resolver = resolver
        self._max_connections = max_connections
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=CheckedResolver(self._guard, self._resolver),
            use_dns_cache=False,
            limit=self._max_connections,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=CHUNK_BYTES,
            headers={"Accept-Encoding": "identity", "Accept": "*/*", "User-Agent": "velro"},
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=PACE_WINDOW_S * 2),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    @contextlib.asynccontextmanager
    async def fetched(
        self, url: str, *, provider: str, credentials: Credentials | None = None
    ) -> AsyncGenerator[Fetched]:
        """The file behind a link, in the spool as long as the block lasts.

        Raises:
            CopyFailed: with the reason; `Blocked` where the guard refuses.
        """
        first = self._guard.checked(url, provider=provider)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._settings.media_timeout_s):
                    fetched = await self._fetch(first, provider, credentials, stack)
            except TimeoutError as error:
                detail = f"not downloaded within {self._settings.media_timeout_s:g} s"
                raise CopyFailed(ReasonCode.TOO_SLOW, detail) from error
            yield fetched

    async def _fetch(
        self,
        first: URL,
        provider: str,
        credentials: Credentials | None,
        stack: contextlib.AsyncExitStack,
    ) -> Fetched:
        transfer: _Transfer | None = None
        why = ""
        for _ in range(MAX_BREAKS):
            try:
                async with self._answer(first, provider, credentials, transfer) as answer:
                    self._judge(answer)
                    if transfer is None:
                        size = answer.content_length or self._settings.media_max_bytes
                        transfer = _Transfer(
                            await stack.enter_async_context(self._spool.room(size))
                        )
                    await self._receive(answer, transfer)
            except (_Broken, aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError) as error:
                why = str(error) or type(error).__name__
            except (aiohttp.ClientError, TimeoutError) as error:
                detail = f"{first.host} gave no answer: {type(error).__name__}: {error}"
                raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail) from error
            else:
                return Fetched(
                    path=transfer.path,
                    size_bytes=transfer.received,
                    sha256=transfer.digest.hexdigest(),
                    source_host=first.host or "",
                )
        detail = f"the connection to {first.host} broke {MAX_BREAKS} times, the last time: {why}"
        raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail)

    @contextlib.asynccontextmanager
    async def _answer(
        self,
        url: URL,
        provider: str,
        credentials: Credentials | None,
        transfer: _Transfer | None,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer at the end of at most three redirects, each checked like the first URL."""
        assert self._session is not None, "the fetcher is used as a context manager"
        for _ in range(MAX_REDIRECTS + 1):
            headers = _resume_headers(transfer)
            if credentials is not None and credentials.origin == url.origin():
                headers |= credentials.headers
            async with self._session.get(url, headers=headers, allow_redirects=False) as answer:
                if answer.status not in {301, 302, 303, 307, 308}:
                    yield answer
                    return
                location = answer.headers.get("Location", "")
            try:
                target = str(url.join(type(url)(location)))
            except ValueError:
                target = location
            url = self._guard.checked(target, provider=provider)
        detail = f"more than {MAX_REDIRECTS} redirects"
        raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail)

    def _judge(self, answer: aiohttp.ClientResponse) -> None:
        """Raise for an answer that holds no media."""
        match answer.status:
            case 200 | 206:
                encoding = answer.headers.get("Content-Encoding", "identity")
                if encoding != "identity":
                    detail = f"the bytes are encoded as {encoding}, which was not asked for"
                    raise CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, detail)
                if (answer.content_length or 0) > self._settings.media_max_bytes:
                    raise self._too_large(f"{answer.content_length:,} bytes are announced")
            case 404 | 410:
                raise CopyFailed(ReasonCode.SOURCE_EXPIRED, f"the link is dead ({answer.status})")
            case 401 | 403:
                raise CopyFailed(ReasonCode.SOURCE_FORBIDDEN, f"the link refuses ({answer.status})")
            case status:
                raise CopyFailed(
                    ReasonCode.SOURCE_UNAVAILABLE,
                    f"the source answers with {status}",
                    retry_after_s=_retry_after_s(answer.headers.get("Retry-After")),
                )

    async def _receive(self, answer: aiohttp.ClientResponse, transfer: _Transfer) -> None:
        """Append the body to the file, or begin anew where the source cannot go on."""
        if not _continues(answer, transfer):
            transfer.restart()
            transfer.announced = answer.content_length
            transfer.validator = _strong_validator(answer)
        with transfer.path.open("r+b" if transfer.received else "wb") as file:
            file.seek(transfer.received)
            await self._copy(answer, transfer, file)
        if transfer.announced is not None and transfer.received != transfer.announced:
            raise _Broken(f"{transfer.received:,} of {transfer.announced:,} bytes came")

    async def _copy(
        self, answer: aiohttp.ClientResponse, transfer: _Transfer, file: BinaryIO
    ) -> None:
        window_at, window_bytes = monotonic(), 0
        async for chunk in answer.content.iter_any():
            transfer.received += len(chunk)
            if transfer.received > self._settings.media_max_bytes:
                raise self._too_large("more bytes came than are allowed")
            if transfer.announced is not None and transfer.received > transfer.announced:
                raise CopyFailed(
                    ReasonCode.SOURCE_UNAVAILABLE,
                    f"more came than the {transfer.announced:,} bytes that were announced",
                )
            transfer.digest.update(chunk)
            file.write(chunk)
            window_bytes += len(chunk)
            if (window_s := monotonic() - window_at) > PACE_WINDOW_S:
                pace = window_bytes / window_s
                if pace < self._settings.media_min_bytes_per_s:
                    detail = f"{pace:,.0f} bytes/s over {window_s:.0f} s is too slow"
                    raise CopyFailed(ReasonCode.TOO_SLOW, detail)
                window_at, window_bytes = monotonic(), 0

    def _too_large(self, what: str) -> CopyFailed:
        limit = self._settings.media_max_bytes
        return CopyFailed(
            ReasonCode.TOO_LARGE, f"{what}; the limit is {limit:,} (VELRO_MEDIA_MAX_BYTES)"
        )


def _resume_headers(transfer: _Transfer | None) -> dict[str, str]:
    if transfer is None or not transfer.received or transfer.validator is None:
        return {}
    # If-Range: a source whose file has changed meanwhile sends all of it.
    return {"Range": f"bytes={transfer.received}-", "If-Range": transfer.validator}


def _continues(answer: aiohttp.ClientResponse, transfer: _Transfer) -> bool:
    expected = f"bytes {transfer.received}-"
    return (
        answer.status == 206  # noqa: PLR2004 - Partial Content
        and transfer.received > 0
        and answer.headers.get("Content-Range", "").startswith(expected)
    )


def _strong_validator(answer: aiohttp.ClientResponse) -> str | None:
    etag = answer.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else None


def _retry_after_s(value: str | None) -> float | None:
    """Seconds from now, from either form of Retry-After (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None  # neither form: as if nothing had been said
