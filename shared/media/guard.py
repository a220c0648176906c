"""Which URLs and which addresses may be fetched. Everything not allowed here is refused.

Hosts come from an allowlist; what they resolve to is checked, answer by answer, and the
connection goes to the checked address, so that no second answer can slip in between.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shared.media.settings import MediaSettings

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds answer for their machines' credentials; refused whatever the settings say.
# Sources: the clouds' own pages on instance metadata (AWS, GCP, Azure, Alibaba, Oracle, ECS).
METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",
        "169.254.170.2",
        "169.254.169.253",
        "168.63.129.16",
        "100.100.100.200",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd20:ce::254",
    )
)

# NAT64 (RFC 6052, RFC 8215) and IPv4-compatible (RFC 4291) addresses end in an IPv4 address.
_WRAPPING: Final = (
    ipaddress.ip_network("64:ff9b::/96"),
    ipaddress.ip_network("64:ff9b:1::/48"),
    ipaddress.ip_network("::/96"),
)


class Blocked(CopyFailed):
    """The URL, or the address behind it, is not one to fetch from."""

    def __init__(self, detail: str) -> None:
        super().__init__(ReasonCode.BLOCKED_ADDRESS, detail)


def unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 form carries, where it carries one; else itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    teredo = address.teredo[1] if address.teredo else None
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    # :: and ::1 are addresses of their own, and none in disguise
    wrapped = any(address in network for network in _WRAPPING) and int(address) > 1
    return address.ipv4_mapped or address.sixtofour or teredo or (low if wrapped else address)


def refusal(text: str, *, private_allowed: bool) -> str | None:
    """Why an address is not to be connected to; None where it may be."""
    try:
        address = unwrapped(ipaddress.ip_address(text))
    except ValueError:
        return f"{text!r} is not an address"  # a zone id, among others
    if address in METADATA:
        return f"{text} answers for a cloud's credentials"
    if private_allowed:
        return None
    if address.is_multicast or not address.is_global:
        return f"{text} is not on the public internet"
    return None


@dataclass(frozen=True, slots=True)
class Guard:
    """Decides on URLs and addresses by the settings' lists."""

    hosts: Mapping[str, Sequence[str]]
    http_hosts: frozenset[str]

    @classmethod
    def of(cls, settings: MediaSettings) -> Guard:
        """The guard that the settings describe."""
        return cls(settings.media_hosts, frozenset(settings.media_http_hosts))

    def checked(self, text: str, *, provider: str) -> URL:
        """The URL, parsed by the very parser that the download uses.

        Raises:
            Blocked: with the reason.
        """
        url = _parsed(text)
        host, port = str(url.host), url.port or 0
        if self.is_private(host, port) and url.scheme in {"http", "https"}:
            if _is_address(host) and (why := refusal(host, private_allowed=True)):
                raise Blocked(why)
            return url
        if url.scheme != "https":
            raise Blocked(f"{url.scheme}: only https is fetched")
        if port != 443:  # noqa: PLR2004 - the port of https
            raise Blocked(f"port {port}: only 443 is fetched from")
        if _is_address(host):
            raise Blocked(f"{host} is an address and no name")
        if not any(_matches(host, pattern) for pattern in self.hosts.get(provider, ())):
            raise Blocked(f"{host} is not among the hosts of provider {provider!r}")
        return url

    def is_private(self, host: str, port: int) -> bool:
        """Whether the settings allow plain http and private addresses for it, by name."""
        return f"{host}:{port}" in self.http_hosts


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
            OSError: the name does not resolve.
        """
        answers = await self._inner.resolve(host, port, family)
        private_allowed = self._guard.is_private(host, port)
        for answer in answers:
            if why := refusal(answer["host"], private_allowed=private_allowed):
                raise Blocked(f"{host} resolves to {why}")
        return answers

    async def close(self) -> None:
        """Close the resolver underneath."""
        await self._inner.close()


def _parsed(text: str) -> URL:
    if not text.isascii() or any(char <= " " or char in "\\\x7f" for char in text):
        raise Blocked("the URL holds characters that a URL does not have")
    try:
        url = URL(text)
        complete = url.absolute and url.host and url.port is not None
    except ValueError as error:
        raise Blocked(f"this is no URL: {error}") from error
    if not complete:
        raise Blocked("the URL names no host")
    if url.user is not None or url.password is not None:
        raise Blocked("the URL carries user info")
    return url


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _matches(host: str, pattern: str) -> bool:
    if pattern == "*":
        return True
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern
