"""Batched direct get: many messages in answer to one request, without a consumer.

Protocol: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-31.md
"""

from __future__ import annotations

import asyncio
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from shared.event_log.jetstream_api import NOT_SENT, NoAnswer, header, subscribe

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Held:
    """An event as the stream holds it: where, under which id, and its bytes."""

    position: int
    subject: str
    event_id: str
    data: bytes


@dataclass(slots=True)
class _Page:
    done: asyncio.Future[Msg]
    messages: list[Msg] = field(default_factory=list["Msg"])


class DirectGet:
    """Asks one stream for the messages of subjects. Any number of questions at once.

    All answers come to one inbox, so that a question costs no subscription. Replicas answer too,
    so what was appended a moment ago may not be there yet.
    """

    def __init__(self, connection: Client, stream: str, *, timeout_s: float) -> None:
        self._connection = connection
        self._subject = f"$JS.API.DIRECT.GET.{stream}"
        self._timeout_s = timeout_s
        self._inbox = connection.new_inbox()
        self._tokens = itertools.count()
        self._pages: dict[str, _Page] = {}
        self._subscription: Subscription | None = None
        self._subscribing = asyncio.Lock()

    async def of_subject(self, subject: str) -> list[Held]:
        """Every message of one exact subject, oldest first.

        Raises:
            NoAnswer: nobody answered, or the answer lost a part on its way.
        """
        found: list[Held] = []
        pending = 1
        while pending:
            after = found[-1].position if found else 0
            page, pending = await self._ask(
                {"seq": after + 1, "next_by_subj": subject, "batch": _PAGE}
            )
            found += page
        return found

    async def last_of_each(self, subjects: Sequence[str]) -> dict[str, Held]:
        """The newest message of each exact subject that has one. At most 1,000 subjects.

        Raises:
            NoAnswer: nobody answered, or the answer lost a part on its way.
        """
        page, _ = await self._ask({"multi_last": list(subjects), "batch": len(subjects)})
        return {held.subject: held for held in page}

    async def _ask(self, request: Mapping[str, object]) -> tuple[list[Held], int]:
        if not self._connection.is_connected:
            raise NoAnswer("there is no connection to the server")
        token = str(next(self._tokens))
        page = self._pages[token] = _Page(asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._subscribe()
                await self._connection.publish(
                    self._subject, json.dumps(request).encode(), reply=f"{self._inbox}.{token}"
                )
                end = await page.done
        except NOT_SENT as error:
            raise NoAnswer(f"the request could not be sent: {error}") from error
        except TimeoutError as error:
            raise NoAnswer(f"no answer to {self._subject} within {self._timeout_s} s") from error
        finally:
            del self._pages[token]
        match header(end, "Status"):
            case "204":  # end of batch
                return _checked(page.messages, end), int(header(end, "Nats-Num-Pending") or 0)
            case "404":  # no such message
                return [], 0
            case status:
                raise NoAnswer(f"{self._subject} answers {status} {header(end, 'Description')}")

    async def _subscribe(self) -> None:
        async with self._subscribing:
            if self._subscription is None:
                self._subscription = await subscribe(
                    self._connection, f"{self._inbox}.*", self._on_message
                )

    async def _on_message(self, message: Msg) -> None:
        page = self._pages.get(message.subject.rpartition(".")[2])
        if page is None:
            return  # its question has given up
        if not header(message, "Status"):
            page.messages.append(message)
        elif not page.done.done():
            page.done.set_result(message)


def _checked(messages: list[Msg], end: Msg) -> list[Held]:
    # Each message names the position of the one before it, and the end names the last, so a
    # message that the client dropped under load shows.
    held: list[Held] = []
    for message in messages:
        previous = int(header(message, "Nats-Last-Sequence") or 0)
        if held and previous != held[-1].position:
            raise NoAnswer(f"the answer lost a message after position {held[-1].position}")
        held.append(
            Held(
                int(header(message, "Nats-Sequence")),
                header(message, "Nats-Subject"),
                header(message, "Nats-Msg-Id"),
                message.data,
            )
        )
    last = int(header(end, "Nats-Last-Sequence") or 0)
    if last != (held[-1].position if held else 0):
        raise NoAnswer(f"the answer lost its last messages, up to position {last}")
    return held
