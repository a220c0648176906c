"""Connections whose search path names a read model's schema, so that its SQL never does."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from shared.errors import Refused, in_words

if TYPE_CHECKING:
    from collections.abc import Generator

    from asyncpg import Connection, Pool, Record

POSTGRES_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # asyncpg's own: the connection is closed
    # asyncpg's own too: the server has said that it ends the connection, and has not closed it yet.
    asyncpg.exceptions.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,  # shutting down, starting up, terminated
    asyncpg.exceptions.InsufficientResourcesError,  # no slot, no disk, no memory
    asyncpg.exceptions.TransactionRollbackError,  # deadlock, serialization
    asyncpg.exceptions.LockNotAvailableError,
    OSError,  # refused, reset; TimeoutError is one too
)
"""What says nothing about the work: the same on a new connection may succeed."""


def away(error: BaseException) -> str:
    """One of these in a line: a timeout of a driver does not even say whose it is."""
    return f"Postgres is away: {' '.join(in_words(error).split())}"


_NOT_LET_IN: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # the password is one of these
    asyncpg.InvalidCatalogNameError,  # no such database
    asyncpg.exceptions.ClientConfigurationError,  # asyncpg's own: the address is none
)


class PostgresRefused(Refused):
    """The address, the role or its password are wrong; the message says which."""


@contextmanager
def telling_why_refused() -> Generator[None]:
    """What an address that is wrong comes to becomes a sentence, with no password in it.

    Raises:
        PostgresRefused: instead of whatever the driver raised.
    """
    try:
        yield
    except _NOT_LET_IN as error:
        raise PostgresRefused(
            f"Postgres lets nobody in: {error}; see VELRO_GENERATION_POSTGRES_DSN and "
            "VELRO_STORAGE_POSTGRES_DSN"
        ) from error


def _settings(schema: str, application_name: str) -> dict[str, str]:
    return {
        "application_name": application_name,
        "search_path": f'"{schema}"',
        # A client whose machine is gone loses its advisory locks after about 25 s, not hours.
        "tcp_keepalives_idle": "10",
        "tcp_keepalives_interval": "5",
        "tcp_keepalives_count": "3",
        # Nothing here holds a transaction while it waits for a network.
        "idle_in_transaction_session_timeout": "60s",
    }


async def connect(
    dsn: str,
    *,
    schema: str,
    application_name: str,
    timeout_s: float = 5.0,
    command_timeout_s: float = 60.0,
) -> Connection[Record]:
    """One connection.

    Raises:
        POSTGRES_AWAY: any of these.
        PostgresRefused: the address is wrong, or what it says of us.
    """
    with telling_why_refused():
        return await asyncpg.connect(
            dsn,
            timeout=timeout_s,
            command_timeout=command_timeout_s,
            server_settings=_settings(schema, application_name),
        )


async def open_pool(
    dsn: str,
    *,
    schema: str,
    application_name: str,
    max_size: int = 10,
    command_timeout_s: float = 10.0,
) -> Pool[Record]:
    """A pool that connects when it is first used, so that Postgres may start later.

    The caller closes it.
    """
    pool: Any = asyncpg.create_pool(
        dsn,
        min_size=0,
        max_size=max_size,
        timeout=5.0,
        command_timeout=command_timeout_s,
        server_settings={
            **_settings(schema, application_name),
            # Planning a small query with its values costs 0.1 ms and finds the partial index.
            "plan_cache_mode": "force_custom_plan",
        },
    )
    opened: Pool[Record] = await pool
    return opened


async def close(connection: Connection[Record], *, timeout_s: float = 5.0) -> None:
    """Close a connection whatever state it is in; its advisory locks go with it."""
    if connection.is_closed():
        return
    try:
        await connection.close(timeout=timeout_s)
    except POSTGRES_AWAY:
        connection.terminate()
