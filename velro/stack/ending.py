"""How a process ends: asked first, then by force, with everything that it started."""

from __future__ import annotations

import contextlib
import os
import signal
from time import monotonic, sleep
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velro.stack.state import Identity

_LOOK_EVERY_S = 0.01
_KILL_DEADLINE_S = 10.0


def end(identity: Identity, *, stop_signal: int, deadline_s: float) -> bool:
    """Ask a process to finish, then kill what is left of it and of what it started.

    Returns:
        Whether all of it is gone.
    """
    process = identity.process()
    if process is None:
        return True
    family = _family(process)
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(stop_signal)
    if _wait([process], deadline_s) and _wait(family, min(deadline_s, 1.0)):
        return True
    return _kill(family)


def kill(identity: Identity) -> bool:
    """SIGKILL to a process, its group and what it started, even in groups of their own.

    Returns:
        Whether all of it is gone.
    """
    process = identity.process()
    return process is None or _kill(_family(process))


def _kill(family: Sequence[psutil.Process]) -> bool:
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            # A group leader's pid is its group's: this reaches grandchildren whose parent died.
            if _alive(member) and os.getpgid(member.pid) == member.pid:
                os.killpg(member.pid, signal.SIGKILL)
            member.kill()
    return _wait(family, _KILL_DEADLINE_S)


def _family(process: psutil.Process) -> list[psutil.Process]:
    # PostgreSQL's processes lead sessions of their own: a signal to the group misses them, and
    # they hold the shared memory without which the server cannot start again.
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return [process]


def _wait(family: Sequence[psutil.Process], deadline_s: float) -> bool:
    deadline = monotonic() + deadline_s
    while any(map(_alive, family)):
        if monotonic() > deadline:
            return False
        sleep(_LOOK_EVERY_S)
    return True


def _alive(process: psutil.Process) -> bool:
    # A zombie has ended: it waits for its parent, which may be this program or a careless init.
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
