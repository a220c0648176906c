"""The one place that opens a NATS connection: it comes back by itself and ends when told to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import structlog
from nats.errors import ConnectionClosedError, ConnectionReconnectingError, SlowConsumerError
from nats.errors import Error as NatsError

from shared.errors import TryLater, in_words
from shared.messaging.deliveries import DeliveringClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from nats.aio.client import Client

_log = structlog.get_logger(__name__)

_RECONNECT_WAIT_S: Final = 0.5
_FLUSH_TIMEOUT_S: Final = 5
_PING_INTERVAL_S: Final = 10
# Within this a server answers that is there, however busy; asked only where a connection ends.
_SILENCE_S: Final = 2


class BrokerUnavailable(TryLater):
    """No connection to NATS could be made in time. The message says to which server."""


async def connect(
    servers: str | list[str],
    *,
    name: str,
    timeout_s: float = 10.0,
    on_closed: Callable[[], Awaitable[None]] | None = None,
    **options: Any,  # noqa: ANN401 - handed to nats-py as they are
) -> Client:
    """Connect, and stay connected for ever: every loss is followed by tries without end.

    Args:
        servers: `nats://host:port`, or several of one cluster.
        name: shown by the server's monitoring.
        timeout_s: for the first connection.
        on_closed: called when the connection has ended for good. That happens on `drain`, and
            when a server refuses the client while it is connected, so a service ends with it.
        options: of nats-py, as `user`, `password`, `tls`, `inbox_prefix`.

    Raises:
        BrokerUnavailable: no server let us in.
    """
    last_error: Exception | None = None

    async def on_error(error: Exception) -> None:
        # nats-py calls this from its own tasks and does not survive an exception here.
        nonlocal last_error
        again, last_error = str(error) == str(last_error), error
        if isinstance(error, SlowConsumerError):
            _log.error("nats_message_dropped", connection=name, subject=error.subject)
        elif not again:  # a server that is away is one piece of news, not two a second
            _log.warning("nats_error", connection=name, error=str(error) or type(error).__name__)

    async def on_disconnected() -> None:
        if not client.is_closed:  # closed by us is no news
            _log.warning("nats_disconnected", connection=name)

    async def on_reconnected() -> None:
        nonlocal last_error
        last_error = None
        _log.info("nats_reconnected", connection=name)

    async def when_closed() -> None:
        _log.info("nats_closed", connection=name)
        if on_closed is not None:
            await on_closed()

    client = DeliveringClient()
    try:
        async with asyncio.timeout(timeout_s):
            await client.connect(
                servers,
                name=name,
                error_cb=on_error,
                disconnected_cb=on_disconnected,
                reconnected_cb=on_reconnected,
                closed_cb=when_closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RECONNECT_WAIT_S,  # pyright: ignore[reportArgumentType] - slept
                ping_interval=_PING_INTERVAL_S,
                flush_timeout=_FLUSH_TIMEOUT_S,
                **options,
            )
    except (TimeoutError, NatsError, OSError) as error:
        with suppress(AssertionError):  # nats-py's, where an address is none: nothing was begun
            await client.close()
        named, why = [servers] if isinstance(servers, str) else servers, last_error or error
        raise BrokerUnavailable(
            f"no connection to {', '.join(named)} within {timeout_s:g} s: {in_words(why)}"
        ) from error
    return client


async def drain(connection: Client, *, timeout_s: float = 10.0) -> None:
    """Let callbacks finish and what was published leave, then close; close in any case."""
    try:
        await close_if_silent(connection)
        async with asyncio.timeout(timeout_s):
            await connection.drain()
    except (TimeoutError, ConnectionClosedError, ConnectionReconnectingError, NatsError) as error:
        _log.warning("nats_not_drained", reason=str(error) or type(error).__name__)
    finally:
        await connection.close()


async def close_if_silent(connection: Client) -> None:
    """Close a connection at once whose server answers nothing: for before it is drained.

    nats-py's drain waits ten seconds for such a server, and then ten more. Nothing is lost: what
    was not acknowledged is sent again, or delivered again.
    """
    if not connection.is_connected:
        return
    try:
        await connection.flush(_SILENCE_S)
    except NatsError as error:
        _log.warning("nats_silent", reason=str(error))
        await connection.close()


@asynccontextmanager
async def connected(
    servers: str | list[str], *, name: str, timeout_s: float = 10.0
) -> AsyncGenerator[Client, None]:
    """A connection for as long as the context is open.

    Raises:
        BrokerUnavailable: no server let us in.
    """
    connection = await connect(servers, name=name, timeout_s=timeout_s)
    try:
        yield connection
    finally:
        await drain(connection)
