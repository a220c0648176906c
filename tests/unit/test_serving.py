"""An address that cannot be served at is a sentence, not a trace."""

from __future__ import annotations

import re
import socket

import pytest
from fastapi import FastAPI

from shared.serving import AddressTaken, serving


async def test_a_port_that_somebody_else_has_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = f"nothing can listen on 127.0.0.1, port {port}: Address already in use"
        with pytest.raises(AddressTaken, match=re.escape(told)):
            async with serving(FastAPI(), host="127.0.0.1", port=port):
                pass


async def test_an_address_that_is_not_this_machines_is_told() -> None:
    with pytest.raises(AddressTaken, match=r"on 192\.0\.2\.1, port 0: .* choose another"):
        async with serving(FastAPI(), host="192.0.2.1", port=0):
            pass
