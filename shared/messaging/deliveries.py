"""A NATS connection that can hand out deliveries as they come off the wire.

nats-py parses every header of every message, character by character, and queues each message for a
task of its subscription: 8 of the 12 us that reading one event takes. Who reads a whole log needs
neither.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nats.aio.client import Client

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    Delivered = Callable[[bytes, bytes, bytes, bytes], bool]
    """Takes subject, reply, payload and the block of headers as it came; False leaves the message
    to its subscription."""


class DeliveringClient(Client):
    """nats-py's client, with a way past headers and queues for subscriptions that ask for it."""

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Delivered] = {}

    def deliver(self, subscription: Subscription, to: Delivered) -> None:
        """Hand a subscription's messages to a function first, in the order of the wire."""
        self._takers[subscription._id] = to  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what the wire calls it

    def deliver_no_more(self, subscription: Subscription) -> None:
        """Leave them to the subscription again."""
        self._takers.pop(subscription._id, None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the same

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        take = self._takers.get(sid)
        if take is None or not take(subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)
