"""Ports on loopback: the usual ones where they are free, others where not, the same next time."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import random
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from shared.errors import VelroError

if TYPE_CHECKING:
    from collections.abc import Mapping

# SeaweedFS opens a gRPC port this far above every HTTP port of its own, without asking.
GRPC_OFFSET = 10_000
# Below the range that the kernel hands out to outgoing connections (32768 and up), so that no
# client's connection sits on the port, or on its gRPC port, when its server starts again.
_OTHERS = range(11_000, 22_000)
_TRIES = 500
HIGHEST = 65_535
_SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS puts them there, whatever TMPDIR says


# Everybody wishes for the same usual ports, of the others two may come upon one, and a server binds
# its own only later: until then, and while it is stopped for a while, the program holds the port's
# UDP side, which no server uses.
# Two SeaweedFS on one port are worse than a failed start: the one that fails has taken away the
# Unix sockets of the other.
_reserved: dict[int, tuple[Path, socket.socket]] = {}


class NoFreePort(VelroError):
    """Not one of many ports tried could be bound on loopback."""


def is_free(port: int) -> bool:
    """Whether the port, and the gRPC port that belongs to it, can be had on loopback."""
    return all(_can_bind(claim) and not _barred_by_socket(claim) for claim in _claimed(port))


def choose(
    usual: Mapping[str, int | None], memory: Path, *, wished: Mapping[str, int] | None = None
) -> dict[str, int]:
    """One free port a name: the remembered one, else the usual one (None: none), else another.

    They are held for this program, against other Velros of the machine, until `release`.

    Args:
        usual: by name.
        memory: the file that remembers.
        wished: come before what is remembered.

    Raises:
        NoFreePort: none was found.
    """
    release(memory)
    chosen: dict[str, int] = {}
    for name, wish in {**usual, **remembered(memory), **(wished or {})}.items():
        taken = {claim for port in chosen.values() for claim in _claimed(port)}
        wishes = [] if wish is None else [wish]
        port = _first_free([*wishes, *random.sample(_OTHERS, _TRIES)], taken)
        _reserve(port, memory)
        chosen[name] = port
    memory.parent.mkdir(parents=True, exist_ok=True)
    fresh = memory.with_suffix(".new")
    fresh.write_text(json.dumps(chosen, indent=1))
    fresh.replace(memory)
    return chosen


def release(memory: Path) -> None:
    """Hold the ports of this memory no longer; its servers may keep them all the same."""
    for port, (holder, held) in list(_reserved.items()):
        if holder == memory:
            held.close()
            del _reserved[port]


@atexit.register
def _release_all() -> None:
    for _, held in _reserved.values():
        held.close()


def remembered(memory: Path) -> dict[str, int]:
    """The ports of the last time; empty where there was none."""
    ports: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    return ports


def _claimed(port: int) -> tuple[int, ...]:
    return tuple(claim for claim in (port, port + GRPC_OFFSET) if claim <= HIGHEST)


def _first_free(candidates: list[int], taken: set[int]) -> int:
    for port in candidates:
        if taken.isdisjoint(_claimed(port)) and is_free(port):
            return port
    raise NoFreePort(f"no free port on 127.0.0.1 between {_OTHERS.start} and {_OTHERS.stop}")


def _reserve(port: int, memory: Path) -> None:
    for claim in _claimed(port):
        held = socket.socket(type=socket.SOCK_DGRAM)
        _reserved[claim] = (memory, held)
        # Lost to another program since the look: its server starts first, and ours says so.
        with contextlib.suppress(OSError):
            held.bind(("127.0.0.1", claim))


def _can_bind(port: int) -> bool:
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tcp.bind(("127.0.0.1", port))
            udp.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _barred_by_socket(port: int) -> bool:
    # SeaweedFS ends, or waits for ever, where it cannot take away another user's old socket.
    user = os.geteuid()
    sockets = _SOCKETS.glob(f"seaweedfs-*-{port}.sock")
    return user != 0 and any(path.lstat().st_uid != user for path in sockets)
