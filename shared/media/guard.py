"""Which URLs may be fetched. Everything not allowed here is refused.

Hosts come from an allowlist; what they resolve to is checked, answer by answer, and the
connection goes to the checked address, so that no second answer can slip in between.
"""

from __future__ import annotations

import asyncio
import re
import socket
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from shared.contracts.reasons import ReasonCode
from shared.media.addresses import refusal
from shared.media.copying import CopyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.media.settings import MediaSettings

MAX_URL_CHARS: Final = 8192
RESOLVE_WITHIN_S: Final = 10.0
HTTPS_PORT: Final = 443

_NOT_IN_A_URL: Final = re.compile(r"[\x00-\x1f\x7f\\]")
_AUTHORITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# What `inet_aton` reads as an address: 2130706433, 0x7f.1, 0177.0.0.1. Every such host ends in a
# number, and no name does (https://url.spec.whatwg.org/#ends-in-a-number-checker).
_ENDS_IN_A_NUMBER: Final = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_MAX_NAME_CHARS: Final = 253


class Blocked(CopyFailed):
    """The URL, or the address behind it, is not one to fetch from."""

    def __init__(self, detail: str) -> None:
        super().__init__(ReasonCode.BLOCKED_ADDRESS, detail)


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides on URLs by the settings' lists.

    Attributes:
        hosts: by provider, the names its outputs may come from; `*.` stands for any subdomain.
        http_hosts: `host:port` entries for which plain http, any port and private addresses
            are allowed; an IPv6 address stands in brackets.
    """

    hosts: Mapping[str, Sequence[str]]
    http_hosts: frozenset[str]

    @classmethod
    def of(cls, settings: MediaSettings) -> Guard:
        """The guard that the settings describe."""
        return cls(settings.media_hosts, frozenset(settings.media_http_hosts))

    def checked(self, text: str, *, provider: str, came_from: URL | None = None) -> URL:
        """The URL, parsed by the very parser that the download uses, spelt as it came.

        Args:
            text: what somebody else named.
            provider: who answers for the URL that the fetch began with.
            came_from: what redirected here. Nothing public may send us into a private network.

        Raises:
            Blocked: with the reason.
        """
        url = _parsed(text)
        host, port = str(url.host), url.port or 0
        if url.scheme in {"http", "https"} and self.is_private(host, port):
            if _is_address(host) and (why := refusal(host, private_allowed=True)):
                raise Blocked(why)
            if came_from is not None and not self.is_private(
                str(came_from.host), came_from.port or 0
            ):
                raise Blocked(f"{came_from.host} redirects to the private host {host}")
            return url
        if url.scheme != "https":
            raise Blocked(
                f"{url.scheme}: only https is fetched, but for what VELRO_MEDIA_HTTP_HOSTS names"
            )
        if port != HTTPS_PORT:
            raise Blocked(f"port {port}: only {HTTPS_PORT} is fetched from")
        if _is_address(host):
            raise Blocked(f"{host} is an address and no name")
        if len(host) > _MAX_NAME_CHARS or not _NAME.fullmatch(host):
            raise Blocked(f"{host[:80]!r} is not a name that a host can have")
        if _ENDS_IN_A_NUMBER.fullmatch(host):
            raise Blocked(f"{host} is another way to write an address")
        if not any(_matches(host, pattern) for pattern in self.hosts.get(provider, ())):
            raise Blocked(
                f"{host} is not among the hosts of provider {provider!r} (VELRO_MEDIA_HOSTS)"
            )
        return url

    def is_private(self, host: str, port: int) -> bool:
        """Whether the settings allow plain http and private addresses for it, by name."""
        return f"[{host}]:{port}" in self.http_hosts or f"{host}:{port}" in self.http_hosts


class CheckedResolver(AbstractResolver):
    """Resolves once, and hands out nothing unless every answer may be connected to."""

    def __init__(self, guard: Guard, inner: AbstractResolver | None = None) -> None:
        self._guard = guard
        self._inner = inner or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The checked answers.

        Raises:
            Blocked: one of them, or more, is not to be connected to.
            OSError: the name does not resolve, or not in time.
        """
        try:
            async with asyncio.timeout(RESOLVE_WITHIN_S):
                answers = await self._inner.resolve(host, port, family)
        except TimeoutError as error:
            detail = f"{host} did not resolve within {RESOLVE_WITHIN_S:g} s"
            raise OSError(detail) from error
        if not answers:
            raise OSError(f"{host} has no address")
        private_allowed = self._guard.is_private(host, port)
        for answer in answers:
            if why := refusal(answer["host"], private_allowed=private_allowed):
                raise Blocked(f"{host} resolves to an address that is refused: {why}")
        return answers

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._inner.close()


def _parsed(text: str) -> URL:
    if len(text) > MAX_URL_CHARS:
        raise Blocked(f"the URL has {len(text):,} characters; {MAX_URL_CHARS:,} are read")
    if _NOT_IN_A_URL.search(text):
        raise Blocked("the URL holds characters that a URL does not have")
    authority = _AUTHORITY.match(text)
    if authority is None:
        raise Blocked("the URL names no host")
    if not authority[1].isascii() or any(char in authority[1] for char in "% @"):
        # Escapes, zones and letters that fold into others are ways to say one host and mean
        # another; what stands before an @ is no host at all.
        raise Blocked("the URL's host is written with more than a host's letters, or user info")
    # The one part whose letters' case means nothing; origins are compared by it.
    text = text[: authority.end()].lower() + text[authority.end() :]
    try:
        url = URL(text)
        complete = url.absolute and url.host and url.port is not None
        if text.isascii() and " " not in text:
            # As it was signed: the parser spells escapes its own way (%2C as a comma), and then
            # a signature over the path and query does not fit any more.
            url = URL(text, encoded=True).with_fragment(None)
    except ValueError as error:
        raise Blocked(f"this is no URL: {error}") from error
    if not complete or not url.host:
        raise Blocked("the URL names no host")
    return url


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern
