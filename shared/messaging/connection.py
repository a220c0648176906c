"""The one place that opens a NATS connection: it comes back by itself and ends when told to."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
from nats.errors import ConnectionClosedError, ConnectionReconnectingError, SlowConsumerError
from nats.errors import Error as NatsError

from shared.errors import TryLater, in_words
from shared.messaging.access import AccessUnreadable, Credentials, NatsAccess
from shared.messaging.deliveries import DeliveringClient

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    from nats.aio.client import Client

_log = structlog.get_logger(__name__)

_RECONNECT_WAIT_S: Final = 0.5
_FLUSH_TIMEOUT_S: Final = 5
_PING_INTERVAL_S: Final = 10
_HUNG_UP: Final = (BrokenPipeError, ConnectionResetError)
_CANCELLED_AGAIN_S: Final = 0.2
# Within this a server answers that is there, however busy; asked only where a connection ends.
_SILENCE_S: Final = 2


class BrokerUnavailable(TryLater):
    """No connection to NATS could be made in time. The message says to which server."""


async def connect(
    access: NatsAccess | str,
    *,
    name: str,
    timeout_s: float = 10.0,
    **options: Any,  # noqa: ANN401 - handed to nats-py as they are
) -> DeliveringClient:
    """Connect, and stay connected for ever: every loss is followed by tries without end.

    Args:
        access: where to, and what lets us in; or an address alone.
        name: shown by the server's monitoring.
        timeout_s: for the first connection.
        options: of nats-py, as `inbox_prefix`.

    Raises:
        BrokerUnavailable: no server let us in.
        AccessUnreadable, CertificatesUnreadable: a file that should let us in does not.
    """
    if isinstance(access, str):
        access = NatsAccess((access,))
    credentials = access.credentials()
    options |= _entry(access, credentials)
    client = DeliveringClient()
    news = _News(client, name)
    connecting = client.connect(
        list(access.urls),
        name=name,
        error_cb=news.error,
        disconnected_cb=news.disconnected,
        reconnected_cb=news.reconnected,
        closed_cb=news.closed,
        max_reconnect_attempts=-1,
        reconnect_time_wait=_RECONNECT_WAIT_S,  # pyright: ignore[reportArgumentType] - slept
        ping_interval=_PING_INTERVAL_S,
        flush_timeout=_FLUSH_TIMEOUT_S,
        **options,
    )
    try:
        await _within(timeout_s, connecting)
    except BaseException as error:
        with suppress(AssertionError):  # nats-py's, where an address is none: nothing was begun
            await client.close()
        if not isinstance(error, (TimeoutError, NatsError, OSError)):
            raise
        raise BrokerUnavailable(
            f"no connection to {access} within {timeout_s:g} s: {in_words(news.last or error)}"
            + _expired(credentials)
        ) from error
    return client


async def _within(timeout_s: float, doing: Coroutine[object, object, None]) -> None:
    """Do it, and see that it has ended when this does.

    nats-py waits with `wait_for`, which in Python 3.11 swallows a cancellation that comes at the
    moment of what it waits for; it would go on connecting, beyond every deadline.

    Raises:
        TimeoutError: it was not done in time.
    """
    task = asyncio.ensure_future(doing)
    try:
        done, _ = await asyncio.wait((task,), timeout=timeout_s)
        if not done:
            raise TimeoutError
        task.result()
    finally:
        while not task.done():
            task.cancel()
            await asyncio.wait((task,), timeout=_CANCELLED_AGAIN_S)


@dataclass(slots=True)
class _News:
    """Tells of what happens to a connection; nats-py calls this from its own tasks.

    It does not survive an exception here.
    """

    client: Client
    name: str
    last: Exception | None = None

    async def error(self, error: Exception) -> None:
        if isinstance(error, _HUNG_UP) and isinstance(self.last, NatsError):
            return  # it follows on a refusal, and says less
        again, self.last = str(error) == str(self.last), error
        if isinstance(error, SlowConsumerError):
            _log.error("nats_message_dropped", connection=self.name, subject=error.subject)
        elif not again:  # a server that is away is one piece of news, not two a second
            told = str(error) or type(error).__name__
            _log.warning("nats_error", connection=self.name, error=told)

    async def disconnected(self) -> None:
        if not self.client.is_closed:  # closed by us is no news
            _log.warning("nats_disconnected", connection=self.name)

    async def reconnected(self) -> None:
        self.last = None
        _log.info("nats_reconnected", connection=self.name)

    async def closed(self) -> None:
        _log.info("nats_closed", connection=self.name)


def _expired(credentials: Credentials | None) -> str:
    at = credentials and credentials.expires_at
    if at is None or at > datetime.now(UTC):
        return ""
    return (
        f" (the file of VELRO_NATS_CREDS_FILE holds credentials that expired at {at.isoformat()})"
    )


def _entry(access: NatsAccess, credentials: Credentials | None) -> dict[str, Any]:
    """What lets us in, as options of nats-py."""
    options: dict[str, Any] = dict(access.login())
    if (tls := access.tls()) is not None:
        options["tls"] = tls
    if credentials is not None:
        options |= {
            "user_jwt_cb": partial(_jwt, access),
            "signature_cb": partial(_signed, access),
        }
    return options


def _jwt(access: NatsAccess) -> bytes:
    return _read_again(access).jwt.encode()


def _signed(access: NatsAccess, nonce: str) -> bytes:
    return _read_again(access).sign(nonce)


def _read_again(access: NatsAccess) -> Credentials:
    """The credentials as they are now: nobody has to be restarted when they are new.

    Raises:
        NatsError: there are none any more; nats-py tries again.
    """
    try:
        found = access.credentials()
    except AccessUnreadable as error:
        raise NatsError(str(error)) from error
    assert found is not None
    return found


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
    access: NatsAccess | str, *, name: str, timeout_s: float = 10.0
) -> AsyncGenerator[DeliveringClient, None]:
    """A connection for as long as the context is open.

    Raises:
        BrokerUnavailable: no server let us in.
        AccessUnreadable, CertificatesUnreadable: a file that should let us in does not.
    """
    connection = await connect(access, name=name, timeout_s=timeout_s)
    try:
        yield connection
    finally:
        await drain(connection)
