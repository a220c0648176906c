"""Connections to servers, kept for a while, and one exchange after the other on them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, Protocol, Self

from aiohappyeyeballs import (
    start_connection,  # pyright: ignore[reportUnknownVariableType] - its addresses are tuples of anything
)
from aiohttp.resolver import ThreadedResolver

from shared.errors import in_words
from shared.http11.answer import Answer, read_answer
from shared.http11.connection import Connection
from shared.http11.errors import Cut, NotReached, Silent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from aiohttp.abc import AbstractResolver

    _Address = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]

KEPT_S: Final = 15.0
# RFC 8305: how long an address is tried before the next one is, too.
_NEXT_ADDRESS_AFTER_S: Final = 0.25
_ENDED_WITHIN_S: Final = 1.0
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Origin:
    """Whom a connection is to: scheme, host in ASCII and without brackets, port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As the Host header says it (RFC 9110, 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _DEFAULT_PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"


class Body(Protocol):
    """What is sent behind a request's head; it may be asked to be sent again."""

    @property
    def size_bytes(self) -> int:
        """How much there is."""
        ...

    async def send(self, head: bytes, connection: Connection) -> None:
        """Send the head and all of the body, or stop where an answer comes early."""
        ...


class HttpPool:
    """Sends requests for GET, HEAD and PUT, and reads what is answered.

    Follows no redirect, decompresses nothing, keeps no cookie, asks no proxy, and sends no header
    that it is not given but Host and Content-Length. To be used as an async context manager.

    Args:
        max_connections: at once, those that are kept among them; more exchanges wait.
        connect_within_s: to resolve a name is not part of it.
        silence_s: how long a connection may be silent while something is awaited of it.
        resolver: of names; an address is connected to as it is.
        tls: for https; None is what the system trusts.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        connect_within_s: float,
        silence_s: float,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._max_connections = max_connections
        self._places = asyncio.Semaphore(max_connections)
        self._connect_within_s = connect_within_s
        self._silence_s = silence_s
        self._resolver = resolver
        self._tls = tls
        self._idle: dict[Origin, dict[Connection, asyncio.TimerHandle]] = {}
        self._all: set[Connection] = set()
        self._one_less = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._resolver = self._resolver or ThreadedResolver()
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in tuple(self._all):
            connection.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ENDED_WITHIN_S):
                while self._all:
                    self._one_less.clear()
                    await self._one_less.wait()
        if self._resolver is not None:
            await self._resolver.close()

    @contextlib.asynccontextmanager
    async def exchange(
        self,
        method: str,
        origin: Origin,
        target: str,
        headers: Mapping[str, str],
        body: Body | bytes | memoryview | None = None,
    ) -> AsyncGenerator[Answer]:
        """Ask, and read the answer as long as the block lasts; what is not read of it is dropped.

        A request for which a connection was used that had been kept is sent once more where that
        one ends without a word: the server may just have closed it (RFC 9112, 9.3.1). All methods
        here may be repeated.

        Raises:
            NotReached: no connection was made.
            Cut, NotHttp: there is no answer, or not all of it.
        """
        head = _head(method, origin, target, headers, body)
        async with self._places:
            connection, kept = await self._connection(origin)
            try:
                try:
                    answer = await _asked(connection, method, head, body)
                except Cut as cut:
                    if isinstance(cut, Silent) or not (kept and cut.unanswered):
                        raise
                    connection.abort()
                    connection = await self._new(origin)
                    answer = await _asked(connection, method, head, body)
                yield answer
            except BaseException:
                connection.abort()
                raise
            if answer.reusable:
                self._keep(origin, connection)
            else:
                connection.abort()

    async def _connection(self, origin: Origin) -> tuple[Connection, bool]:
        """One, and whether it had been kept."""
        while (connection := self._taken_out(origin)) is not None:
            if not connection.has_ended and not connection.has_early:
                return connection, True
            connection.abort()
        if len(self._all) >= self._max_connections and self._idle:
            # A place is there for this exchange: what is kept for another server gives way to it.
            longest = self._taken_out(next(iter(self._idle)))
            if longest is not None:
                longest.abort()
        return await self._new(origin), False

    async def _new(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await self._addresses(origin)
        tls = self._tls_to(origin)
        connection = Connection(silence_s=self._silence_s, lost=self._lost)
        try:
            async with asyncio.timeout(self._connect_within_s):
                connected = await start_connection(
                    addresses, happy_eyeballs_delay=_NEXT_ADDRESS_AFTER_S, interleave=1
                )
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.create_connection(
                    lambda: connection,
                    sock=connected,
                    ssl=tls,
                    server_hostname=origin.host if tls else None,
                )
        except TimeoutError as error:
            detail = f"no connection to {origin.authority} in {self._connect_within_s:g} s"
            raise NotReached(detail) from error
        except OSError as error:
            detail = f"no connection to {origin.authority}: {in_words(error)}"
            raise NotReached(detail) from error
        self._all.add(connection)
        return connection

    def _tls_to(self, origin: Origin) -> ssl.SSLContext | None:
        if origin.scheme != "https":
            return None
        if self._tls is None:
            self._tls = ssl.create_default_context()
            self._tls.set_alpn_protocols(["http/1.1"])
        return self._tls

    async def _addresses(self, origin: Origin) -> list[_Address]:
        if _is_address(origin.host):
            return [_as_socket_has_it(origin.host, origin.port)]
        assert self._resolver is not None, "the pool is used as a context manager"
        try:
            answers = await self._resolver.resolve(origin.host, origin.port, socket.AF_UNSPEC)
        except OSError as error:
            raise NotReached(f"{origin.host} is not resolved: {error}") from error
        return [_as_socket_has_it(answer["host"], answer["port"]) for answer in answers]

    def _keep(self, origin: Origin, connection: Connection) -> None:
        timer = asyncio.get_running_loop().call_later(KEPT_S, self._let_go, origin, connection)
        self._idle.setdefault(origin, {})[connection] = timer

    def _let_go(self, origin: Origin, connection: Connection) -> None:
        self._idle[origin].pop(connection)
        if not self._idle[origin]:
            del self._idle[origin]
        connection.abort()

    def _taken_out(self, origin: Origin) -> Connection | None:
        """One that is kept to an origin, which is kept no longer."""
        if origin not in self._idle:
            return None
        connection, timer = self._idle[origin].popitem()
        timer.cancel()
        if not self._idle[origin]:
            del self._idle[origin]
        return connection

    def _lost(self, connection: Connection) -> None:
        self._all.discard(connection)
        self._one_less.set()


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _as_socket_has_it(host: str, port: int) -> _Address:
    if ":" in host:
        return socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port, 0, 0)
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port)


async def _asked(
    connection: Connection, method: str, head: bytes, body: Body | bytes | memoryview | None
) -> Answer:
    match body:
        case None:
            await connection.send(head)
        case bytes() | memoryview():
            await connection.send(head, body)
        case _:
            await body.send(head, connection)
    return await read_answer(connection, method)


def _head(
    method: str,
    origin: Origin,
    target: str,
    headers: Mapping[str, str],
    body: Body | bytes | memoryview | None,
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", f"Host: {origin.authority}"]
    lines += [f"{name}: {value}" for name, value in headers.items() if name.lower() != "host"]
    if body is not None:
        size = len(body) if isinstance(body, bytes | memoryview) else body.size_bytes
        lines.append(f"Content-Length: {size}")
    # One line each, and no line more: nothing that somebody named may write a header of its own.
    if not (written := "".join(lines)).isascii() or not written.isprintable():
        refused = next(line for line in lines if not (line.isascii() and line.isprintable()))
        raise ValueError(f"a request cannot hold {refused!r}")
    if " " in target:
        raise ValueError(f"a request cannot be for {target!r}")
    return "\r\n".join((*lines, "", "")).encode("ascii")
