"""Ends the processes that a program owns when that program ends, however it ends.

The guard is a small process of its own that reads from a pipe which only the program holds: when
the program is gone, even by SIGKILL, the pipe ends, and the guard ends what is left. Linux has a
signal for the death of a parent, but it means the thread that started the child, needs code to run
between fork and exec, and asks once without looking.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from threading import Lock

from velro.stack import ending
from velro.stack.state import Identity

_LAST_WAIT_S = 30.0


class Guard:
    """This program's side: tells the guard what to watch, and starts it with the first."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._watched: dict[int, str] = {}
        self._child: subprocess.Popen[str] | None = None

    @property
    def pid(self) -> int | None:
        """The guard's process id; None before there was anything to watch."""
        return self._child.pid if self._child is not None else None

    def watch(self, identity: Identity, *, stop_signal: int, deadline_s: float) -> None:
        """From now on this process ends when this program does."""
        order = {"watch": asdict(identity), "stop_signal": stop_signal, "deadline_s": deadline_s}
        with self._lock:
            self._watched[identity.pid] = json.dumps(order)
            self._tell(self._watched[identity.pid])

    def release(self, identity: Identity) -> None:
        """The process has ended, or somebody else looks after it."""
        with self._lock:
            if self._watched.pop(identity.pid, None) is not None:
                self._tell(json.dumps({"release": identity.pid}))

    def close(self) -> None:
        """Let the guard end what is still watched, and wait for it."""
        with self._lock:
            child, self._child = self._child, None
            self._watched.clear()
        if child is not None and child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            child.wait(_LAST_WAIT_S)

    def _tell(self, order: str) -> None:
        child = self._child
        if child is not None and child.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                if child.poll() is None:
                    print(order, file=child.stdin, flush=True)
                    return
            # Somebody ended the guard: another takes over everything.
            with contextlib.suppress(BrokenPipeError):
                child.stdin.close()
            child.wait(_LAST_WAIT_S)
        self._child = child = _spawn()
        assert child.stdin is not None
        print(*self._watched.values(), sep="\n", file=child.stdin, flush=True)


def _spawn() -> subprocess.Popen[str]:
    here = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "velro.stack.guard"],
        stdin=subprocess.PIPE,
        # It outlives this program: nobody who waits for the end of our output waits for it.
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([here, *filter(None, sys.path)])},
        start_new_session=True,
    )


guard = Guard()
atexit.register(guard.close)


def main() -> None:
    """Watch until the pipe ends, then end what is watched, all at once."""
    # Its end is the end of the pipe; a shutdown of the machine ends the program first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched: dict[int, tuple[Identity, int, float]] = {}
    for line in sys.stdin:
        if not line.strip():
            continue
        order = json.loads(line)
        if "release" in order:
            watched.pop(order["release"], None)
            continue
        identity = Identity(**order["watch"])
        watched[identity.pid] = (identity, order["stop_signal"], order["deadline_s"])
    with ThreadPoolExecutor(max_workers=max(1, len(watched))) as pool:
        for identity, stop_signal, deadline_s in watched.values():
            pool.submit(ending.end, identity, stop_signal=stop_signal, deadline_s=deadline_s)


if __name__ == "__main__":
    main()
