"""A NATS connection that can hand out deliveries as they come off the wire.

nats-py parses every header of every message, character by character, and queues each message for a
task of its subscription: 8 of the 12 us that reading one event takes. Who reads a whole log needs
neither. Nor does it need three regular expressions and two cuts a message to find where it ends.
"""

from __future__ import annotations

import asyncio
from asyncio import StreamReaderProtocol
from typing import TYPE_CHECKING, Final

from nats.aio.client import Client
from nats.aio.transport import TcpTransport
from nats.errors import Error as NatsError
from nats.protocol.parser import (
    AWAITING_MSG_PAYLOAD,
    CRLF_SIZE,
    PERMISSIONS_ERR,
    STALE_CONNECTION,
    Parser,
)

if TYPE_CHECKING:
    from asyncio import StreamWriter
    from collections.abc import Callable

    from nats.aio.client import Srv
    from nats.aio.subscription import Subscription

    Delivered = Callable[[bytes, bytes, bytes, bytes], bool]
    """Takes subject, reply, payload and the block of headers as it came; False leaves the message
    to its subscription."""


# Of the line before a message that has headers and a reply.
_WORDS: Final = 6


class DeliveringClient(Client):
    """nats-py's client, with a way past headers and queues for subscriptions that ask for it.

    It also leaves no connection open that it has given up, stays closed when it was closed,
    connects again whatever the server said when it hung up, and says nothing in the clear where
    TLS was asked for.
    """

    def __init__(self) -> None:
        super().__init__()
        self._takers: dict[int, Delivered] = {}
        self._ps = _DeliveringParser(self, self._takers)
        self._over = False

    def deliver(self, subscription: Subscription, to: Delivered) -> None:
        """Hand a subscription's messages to a function first, in the order of the wire."""
        self._takers[subscription._id] = to  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what the wire calls it

    def deliver_no_more(self, subscription: Subscription) -> None:
        """Leave them to the subscription again."""
        self._takers.pop(subscription._id, None)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - the same

    async def _connect_to_server(self, s: Srv) -> None:
        # nats-py forgets a connection whose greeting failed, as a proxy's before a server that is
        # away: it would stay open until the garbage collector comes by.
        if self._transport is not None:
            self._transport.close()
        await super()._connect_to_server(s)
        await self._end_if_over()

    async def _process_connect_init(self) -> None:
        await super()._process_connect_init()
        await self._end_if_over()

    async def _close(self, status: int, do_cbs: bool = True) -> None:  # noqa: FBT001, FBT002 - nats-py's
        self._over = self._over or status == Client.CLOSED
        await super()._close(status, do_cbs)

    async def _end_if_over(self) -> None:
        """End what was connected again after it was closed.

        nats-py cancels its connecting then, and waits in it with `wait_for`, which in Python 3.11
        swallows a cancellation that comes at the moment of what it waits for.
        """
        if self._over:
            if self._transport is not None:
                self._transport.close()
            await super()._close(Client.CLOSED, do_cbs=False)
            raise asyncio.CancelledError

    @property
    def problem(self) -> str | None:
        """Why it is not connected, as far as is known; None: it is."""
        if self.is_connected:
            return None
        return f"not connected: {self.last_error}" if self.last_error else "not connected"

    @property
    def encrypted(self) -> bool:
        """Whether what is sent now goes over TLS."""
        return self._stream is not None and self._stream.get_extra_info("ssl_object") is not None

    @property
    def open_to_all(self) -> bool:
        """Whether the server lets everybody in."""
        return not (self._server_info.get("auth_required") or self._server_info.get("tls_verify"))

    @property
    def _stream(self) -> StreamWriter | None:
        # None too where the address is a web socket's.
        if not isinstance(self._transport, TcpTransport):
            return None
        return self._transport._io_writer  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - told by no public name

    def _connect_command(self) -> bytes:
        """What is sent once the server has said what it wants, and TLS has begun if that is it.

        Raises:
            NatsError: TLS is ours to ask for, and the server wants none. nats-py would go on, and
                send what lets us in to whoever answers there.
        """
        if self._stream is not None and self._current_server is not None:
            wanted = self._current_server.uri.scheme == "tls" or "tls" in self.options
            if wanted and not self.encrypted:
                raise NatsError("the server offers no TLS, and the settings ask for it")
            if self.encrypted:
                # Without it asyncio warns of every connection that the server closes; its own
                # StreamWriter.start_tls does the same.
                protocol = self._stream.transport.get_protocol()
                if isinstance(protocol, StreamReaderProtocol):  # it is None where it has hung up
                    protocol._over_ssl = True  # noqa: SLF001 # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue] - see above
        return super()._connect_command()

    async def _process_err(self, err_msg: str) -> None:
        """What the server says is wrong, in lower case, before it hangs up or goes on.

        It hangs up where credentials have expired or were taken back, and where it has too many
        connections. nats-py ends the connection for good then; what comes next may be let in.
        """
        if PERMISSIONS_ERR in err_msg or STALE_CONNECTION in err_msg:
            await super()._process_err(err_msg)  # which goes on, or connects again
            return
        error = NatsError(f"nats: {err_msg}")
        await self._error_cb(error)
        await self._process_op_err(error)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        take = self._takers.get(sid)
        if take is None or not take(subject, reply, data, headers):
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        self.stats["in_msgs"] += 1
        self.stats["in_bytes"] += len(data)


class _DeliveringParser(Parser):
    """nats-py's parser, which is spared the deliveries that are whole in what was read."""

    def __init__(self, client: DeliveringClient, takers: dict[int, Delivered]) -> None:
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType] - its parameter is untyped
        self._client = client
        self._takers = takers

    async def parse(self, data: bytes = b"") -> None:
        if not self._takers:
            await super().parse(data)
            return
        if self.state == AWAITING_MSG_PAYLOAD:
            # The end of a message whose beginning came before.
            missing = self.needed + CRLF_SIZE - len(self.buf)
            await super().parse(data[:missing])
            data = data[missing:]
        if not data or self.state == AWAITING_MSG_PAYLOAD:
            return
        data = bytes(self.buf) + data
        self.buf.clear()
        await super().parse(data[self._handed_out(data) :])

    def _handed_out(self, data: bytes) -> int:
        """Hand out the deliveries that data begins with; where the rest begins."""
        stats, at, end = self._client.stats, 0, len(data)
        while data.startswith(b"HMSG ", at):
            line_end = data.find(b"\r\n", at)
            # HMSG <subject> <sid> <reply> <bytes of headers> <bytes>
            words = data[at:line_end].split(b" ")
            if line_end < 0 or len(words) != _WORDS:
                break
            take = self._takers.get(int(words[2]))
            begin = line_end + CRLF_SIZE
            body, after = begin + int(words[4]), begin + int(words[5])
            if take is None or after + CRLF_SIZE > end:
                break
            if not take(words[1], words[3], data[body:after], data[begin:body]):
                break
            stats["in_msgs"] += 1
            stats["in_bytes"] += after - body
            at = after + CRLF_SIZE
        return at
