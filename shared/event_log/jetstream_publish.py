"""How events get into the stream: one as a plain publish, several as an atomic batch.

Atomic batches:
https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-50.md
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn
from uuid import uuid4

from nats.errors import MaxPayloadError, NoRespondersError

from shared.contracts.codec import encode
from shared.contracts.envelope import CONTENT_TYPE
from shared.event_log.jetstream_api import (
    BATCHES_TURNED_OFF,
    DUPLICATE_IN_BATCH,
    DUPLICATE_IN_FLIGHT,
    NOT_SENT,
    OUT_OF_RESOURCES,
    STORE_FAILED,
    TOO_LARGE,
    WRONG_LAST_SEQUENCE,
    WRONG_STREAM,
    ApiError,
    parse_answer,
)
from shared.event_log.port import (
    MAX_BATCH_EVENTS,
    AppendOutcomeUnknown,
    AppendRefused,
    AppendTooLong,
    EventTooLarge,
    LogFull,
    LogMismatch,
    LogUnavailable,
    VersionConflict,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nats.aio.client import Client

    from shared.contracts.envelope import Envelope
    from shared.event_log.port import ExpectedVersion

# The server holds at most 50 open batches a stream and refuses the next, whoever opens it.
_MAX_OPEN_BATCHES: Final = 16
_MAX_PUBLISHES_IN_FLIGHT: Final = 1024
# Names, colons and line ends of the headers a batch adds, beside their values.
_BATCH_HEADER_BYTES: Final = 160


class AlreadyThere(Exception):
    """A batch holds an id that the stream knows; nothing of the batch was written."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One event ready to be sent.

    Attributes:
        expected: the last position of its subject, checked by the server; None: not checked.
    """

    subject: str
    event_id: str
    data: bytes
    expected: ExpectedVersion | None

    @property
    def size_bytes(self) -> int:
        """About what it takes on the wire, never less."""
        return len(self.data) + len(self.event_id) + len(self.subject) + 256


def outgoing(
    subject: str, events: Sequence[Envelope], expected: ExpectedVersion | None
) -> list[Outgoing]:
    """Events of one aggregate, encoded; the first one carries the expected version."""
    return [
        # Within a batch a second expectation on the same subject is refused, whatever it says.
        Outgoing(subject, event.id, encode(event), None if number else expected)
        for number, event in enumerate(events)
    ]


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The position of the last event, and whether the server knew its id already."""

    position: int
    duplicate: bool


class Publisher:
    """Publishes to one stream over one connection, with a bound on what is in flight."""

    def __init__(self, connection: Client, stream: str, *, timeout_s: float) -> None:
        self._connection = connection
        self._stream = stream
        self._timeout_s = timeout_s
        self._publishes = asyncio.Semaphore(_MAX_PUBLISHES_IN_FLIGHT)
        self._batches = asyncio.Semaphore(_MAX_OPEN_BATCHES)

    async def one(self, event: Outgoing) -> Acknowledged:
        """Publish one event.

        Raises:
            AlreadyThere: never; the acknowledgement says it.
            Everything that `EventLog.append` raises.
        """
        headers = self._headers(event)
        self._check_size(event, headers)
        return await self._within_deadline(self._publishes, [(event, headers)])

    async def batch(self, events: Sequence[Outgoing]) -> Acknowledged:
        """Publish 1 to 1,000 events, all or none; their subjects may differ.

        Raises:
            AlreadyThere: the stream knows the id of at least one.
            Everything that `EventLog.append` raises.
        """
        if len(events) > MAX_BATCH_EVENTS:
            raise AppendTooLong(
                f"{len(events)} events cannot be appended at once; at most {MAX_BATCH_EVENTS} can"
            )
        batch_id = uuid4().hex
        messages: list[tuple[Outgoing, dict[str, str]]] = []
        for number, event in enumerate(events, 1):
            headers = self._headers(event)
            headers["Nats-Batch-Id"] = batch_id
            headers["Nats-Batch-Sequence"] = str(number)
            self._check_size(event, headers)
            messages.append((event, headers))
        messages[-1][1]["Nats-Batch-Commit"] = "1"
        return await self._within_deadline(self._batches, messages)

    def _headers(self, event: Outgoing) -> dict[str, str]:
        headers = {
            "content-type": CONTENT_TYPE,
            "Nats-Msg-Id": event.event_id,
            "Nats-Expected-Stream": self._stream,
        }
        if event.expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(event.expected)
        return headers

    def _check_size(self, event: Outgoing, headers: dict[str, str]) -> None:
        # The server's limit counts headers too. nats-py checks the body alone, and a server
        # that gets more closes the connection, which nats-py then never opens again.
        limit = self._connection.max_payload
        if event.size_bytes + _BATCH_HEADER_BYTES < limit:
            return
        size = len(event.data) + len("NATS/1.0\r\n\r\n") + len("Nats-Batch-Commit: 1\r\n")
        size += sum(len(name.encode()) + len(value.encode()) + 4 for name, value in headers.items())
        if size > limit:
            raise EventTooLarge(
                f"event {event.event_id} is {size} bytes with its headers; "
                f"the server takes {limit} (max_payload)"
            )

    async def _within_deadline(
        self,
        slots: asyncio.Semaphore,
        messages: list[tuple[Outgoing, dict[str, str]]],
    ) -> Acknowledged:
        if not self._connection.is_connected:
            # nats-py would keep the event and send it after a reconnect, perhaps after we have
            # given up: better to know that nothing was written.
            raise LogUnavailable("there is no connection to the log's server")
        sent = False
        try:
            async with asyncio.timeout(self._timeout_s):
                async with slots:
                    sent = True
                    return await self._send(messages)
        except TimeoutError as error:
            if not sent:
                raise LogUnavailable(
                    f"{self._timeout_s} s passed before there was room to send"
                ) from error
            raise AppendOutcomeUnknown(
                f"no answer within {self._timeout_s} s for {messages[-1][0].event_id}"
            ) from error
        except NoRespondersError as error:
            raise LogUnavailable(
                f"no stream takes {messages[-1][0].subject}: create {self._stream}"
            ) from error
        except MaxPayloadError as error:
            raise EventTooLarge(f"event {messages[-1][0].event_id}: {error}") from error
        except NOT_SENT as error:
            # Raised while sending, so a batch was not committed.
            raise LogUnavailable(f"the connection to the log's server ended: {error}") from error
        except ApiError as error:
            self._raise(error, messages[0][0])

    async def _send(self, messages: list[tuple[Outgoing, dict[str, str]]]) -> Acknowledged:
        publish = self._connection.publish
        for event, headers in messages[:-1]:
            await publish(event.subject, event.data, headers=headers)
        event, headers = messages[-1]
        answer = parse_answer(
            await self._connection.request(
                event.subject, event.data, timeout=self._timeout_s, headers=headers
            )
        )
        return Acknowledged(int(answer["seq"]), bool(answer.get("duplicate")))

    def _raise(self, error: ApiError, first: Outgoing) -> NoReturn:
        match error.err_code:
            case code if code in WRONG_LAST_SEQUENCE:
                raise VersionConflict(f"{first.subject} has other events: {error}") from error
            case code if code == DUPLICATE_IN_BATCH:
                raise AlreadyThere from error
            case code if code == DUPLICATE_IN_FLIGHT:
                raise AppendOutcomeUnknown(f"{first.event_id}: {error}") from error
            case code if code in TOO_LARGE:
                raise EventTooLarge(f"{first.subject}: {error}") from error
            case code if code in (WRONG_STREAM, BATCHES_TURNED_OFF):
                raise LogMismatch(f"{self._stream}, {first.subject}: {error}") from error
            case code if code in OUT_OF_RESOURCES or (
                code == STORE_FAILED
                and ("exceeded" in error.description or "no space" in error.description)
            ):
                raise LogFull(f"stream {self._stream} takes no more events: {error}") from error
            case _ if error.code < 500:  # noqa: PLR2004 - as in HTTP
                raise AppendRefused(f"{first.subject}: {error}") from error
            case _:
                raise LogUnavailable(f"{first.subject}: {error}") from error
