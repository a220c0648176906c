"""What a connection that cannot be made says, once."""

from __future__ import annotations

import socket

import pytest
from structlog.testing import capture_logs

from shared.messaging.connection import BrokerUnavailable, connect


async def test_an_address_that_is_none_is_told() -> None:
    with pytest.raises(BrokerUnavailable, match="nowhere"):
        await connect("nowhere:::", name="test", timeout_s=5)


async def test_a_server_that_is_away_is_told_once_however_often_it_is_tried() -> None:
    with socket.socket() as nobody_listens, capture_logs() as lines:
        nobody_listens.bind(("127.0.0.1", 0))
        url = f"nats://127.0.0.1:{nobody_listens.getsockname()[1]}"
        with pytest.raises(BrokerUnavailable, match="Connect"):
            await connect(url, name="test", timeout_s=1.8)  # three or four tries
    assert [line["event"] for line in lines if line["event"] == "nats_error"] == ["nats_error"]
