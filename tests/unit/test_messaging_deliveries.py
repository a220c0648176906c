"""Deliveries come off the wire whole and in order, however the bytes arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from shared.messaging.deliveries import DeliveringClient

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADERS = b"NATS/1.0\r\nContent-Type: x\r\n\r\n"
Taken = tuple[bytes, bytes, bytes, bytes]


def delivery(number: int, body: bytes, *, sid: int = 1) -> bytes:
    total = len(HEADERS) + len(body)
    line = f"HMSG velro.{number} {sid} $JS.ACK.{number} {len(HEADERS)} {total}\r\n".encode()
    return line + HEADERS + body + b"\r\n"


def expected(number: int, body: bytes) -> Taken:
    return f"velro.{number}".encode(), f"$JS.ACK.{number}".encode(), body, HEADERS


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


BODIES = [b"", b"{}", b"HMSG a 1 b 2 3\r\n", b"\r\n\r\n", b"x" * 300]
WIRE = b"".join(
    [
        delivery(0, BODIES[0]),
        b"+OK\r\n",
        delivery(1, BODIES[1]),
        delivery(2, BODIES[2]),
        b"MSG elsewhere 9 3\r\nabc\r\n",
        delivery(8, b"of another subscription", sid=7),
        delivery(3, BODIES[3]),
        delivery(4, BODIES[4]),
    ]
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50, 64, 100, len(WIRE) - 1, len(WIRE)])
async def test_every_delivery_is_taken_once_in_whatever_pieces_it_comes(size: int) -> None:
    client: Any = DeliveringClient()
    taken: list[Taken] = []

    def take(*message: bytes) -> bool:
        subject, reply, data, headers = message
        taken.append((subject, reply, data, headers))
        return True

    client._takers[1] = take
    for _ in range(2):
        for piece in pieces(WIRE, size):
            await client._ps.parse(piece)
    once = [expected(number, body) for number, body in enumerate(BODIES)]
    assert taken == [*once, *once]
    parser = client._ps
    assert not parser.buf


async def test_what_is_not_taken_goes_the_way_of_every_message() -> None:
    client: Any = DeliveringClient()
    offered: list[bytes] = []

    def refuse(*message: bytes) -> bool:
        offered.append(message[2])
        return False

    client._takers[1] = refuse
    await client._ps.parse(delivery(1, b"a") + delivery(2, b"b"))
    assert set(offered) == {b"a", b"b"}
    assert client.stats["in_msgs"] == 2
