"""JetStream's JSON requests, typed, and the error codes that mean something to the log.

Codes: https://github.com/nats-io/nats-server/blob/v2.15.1/server/errors.json
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, cast

from nats.errors import (
    ConnectionClosedError,
    ConnectionDrainingError,
    NoRespondersError,
    OutboundBufferLimitError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

STREAM_NOT_FOUND: Final = 10059
MESSAGE_NOT_FOUND: Final = 10037
WRONG_STREAM: Final = 10060
# The second one comes out of atomic batches, and in a cluster while another append to the
# subject is in flight.
WRONG_LAST_SEQUENCE: Final = frozenset({10071, 10164})
DUPLICATE_IN_BATCH: Final = 10201
DUPLICATE_IN_FLIGHT: Final = 10158
STORE_FAILED: Final = 10077
OUT_OF_RESOURCES: Final = frozenset({10023, 10028, 10047})
TOO_LARGE: Final = frozenset({10054, 10097})
BATCHES_TURNED_OFF: Final = 10174
# Its beginning was lost with a connection, or too many batches are open: nothing was written.
BATCH_NOT_WHOLE: Final = frozenset({10176, 10210})

# What nats-py raises before anything has left: the request was certainly not sent.
NOT_SENT = (ConnectionClosedError, ConnectionDrainingError, OutboundBufferLimitError)


class NoAnswer(Exception):
    """Nobody answered the request: no connection, no responder or no answer in time."""


class ApiError(Exception):
    """The server's own words for why it refused a request.

    Attributes:
        code: like an HTTP status.
        err_code: which error it is.
        description: the server's sentence.
    """

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} ({err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


def parse_answer(message: Msg) -> dict[str, Any]:
    """The JSON body of an answer.

    Raises:
        ApiError: the body says so.
    """
    body = cast("dict[str, Any]", json.loads(message.data))
    if error := body.get("error"):
        raise ApiError(
            int(error.get("code", 500)),
            int(error.get("err_code", 0)),
            str(error.get("description", "no description")),
        )
    return body


async def request(
    connection: Client,
    subject: str,
    data: bytes,
    *,
    timeout_s: float,
    headers: dict[str, str] | None = None,
) -> Msg:
    """One request and its answer; a cancellation that arrives together with the answer counts.

    nats-py waits in `asyncio.wait_for`, which before Python 3.12 then returns the answer and drops
    the cancellation (https://github.com/python/cpython/issues/86296): a reader that was given up in
    that moment read on for ever, and whoever waited for its end did so too.

    Raises:
        nats.errors.Error: as `Client.request` does; its TimeoutError is Python's too.
    """
    task = asyncio.current_task()
    cancelled_before = task.cancelling() if task is not None else 0
    answer = await connection.request(subject, data, timeout=timeout_s, headers=headers)
    if task is not None and task.cancelling() > cancelled_before:
        raise asyncio.CancelledError
    return answer


async def ask(
    connection: Client, subject: str, body: Mapping[str, object] | None, *, timeout_s: float
) -> dict[str, Any]:
    """Send one JSON request and read its answer.

    Raises:
        NoAnswer: nobody answered; a request that changes something may have been carried out.
        ApiError: the server refused.
    """
    if not connection.is_connected:
        raise NoAnswer("there is no connection to the server")
    data = json.dumps(body).encode() if body is not None else b""
    try:
        async with asyncio.timeout(timeout_s):
            message = await request(connection, subject, data, timeout_s=timeout_s)
    except NoRespondersError as error:
        raise NoAnswer(f"nothing on the server answers {subject}") from error
    except NOT_SENT as error:
        raise NoAnswer(f"the request could not be sent: {error}") from error
    except TimeoutError as error:
        raise NoAnswer(f"no answer to {subject} within {timeout_s} s") from error
    return parse_answer(message)


async def subscribe(
    connection: Client, subject: str, on_message: Callable[[Msg], Awaitable[None]]
) -> Subscription:
    """Have every message on a subject handed to a callback, which must not wait."""
    # nats-py leaves the type of one parameter open, which is not used here.
    return await connection.subscribe(subject, cb=on_message)  # pyright: ignore[reportUnknownMemberType]


def header(message: Msg, name: str) -> str:
    """A header of a message; empty where it has none of that name."""
    return (message.headers or {}).get(name, "")
