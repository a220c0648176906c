"""Ports on loopback: the usual ones where they are free, others where not, the same next time."""

from __future__ import annotations

import json
import random
import socket
from typing import TYPE_CHECKING

from shared.errors import VelroError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# SeaweedFS opens a gRPC port this far above every HTTP port of its own, without asking.
GRPC_OFFSET = 10_000


class NoFreePort(VelroError):
    """Not one of many ports tried could be bound on loopback."""


def is_free(port: int) -> bool:
    """Whether the port, and the gRPC port that belongs to it, can be bound on loopback."""
    return all(_can_bind(candidate) for candidate in (port, port + GRPC_OFFSET))


def choose(usual: Mapping[str, int | None], memory: Path) -> dict[str, int]:
    """One free port a name: the remembered one, else the usual one (None: none), else another.

    Raises:
        NoFreePort: none was found.
    """
    chosen: dict[str, int] = {}
    for name, port in {**usual, **remembered(memory)}.items():
        taken = set(chosen.values())
        if port is None or port in taken or not is_free(port):
            port = _other(taken)  # noqa: PLW2901 - the port of this name, found another way
        chosen[name] = port
    memory.parent.mkdir(parents=True, exist_ok=True)
    memory.write_text(json.dumps(chosen, indent=1))
    return chosen


def remembered(memory: Path) -> dict[str, int]:
    """The ports of the last time; empty where there was none."""
    ports: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    return ports


def _other(taken: set[int]) -> int:
    # Below the range that the kernel hands out to outgoing connections (32768 and up), so that
    # no client's connection sits on the port when its server starts again.
    for port in random.sample(range(11_000, 22_000), 200):
        if port not in taken and is_free(port):
            return port
    raise NoFreePort("no free port on 127.0.0.1 between 11000 and 22000")


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
