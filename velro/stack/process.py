"""One child process with a name, a log, a way to see that it is ready, and a sure end."""

from __future__ import annotations

import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

import psutil

from shared.errors import VelroError
from velro.stack import ending, state
from velro.stack.guard import guard
from velro.stack.interrupts import pause

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_TAIL_LINES = 15
_TAIL_MAX_BYTES = 16_384
_LOOK_EVERY_S = 0.05


class ProcessFailed(VelroError):
    """A process ended or did not become ready in time; the message holds the end of its log."""


class AlreadyRunning(VelroError):
    """The process of an earlier start is alive: stop it first (`velro down`)."""


@dataclass(slots=True, eq=False)
class ManagedProcess:
    """A process that is started, watched and ended by us, in a session of its own.

    A file under `directory` tells a later program which process it is, so that another is never
    mistaken for it.

    Attributes:
        name: unique under `directory`; its log is `<name>.log` there.
        ready: says whether it answers.
        refuses: says whether it runs and has found out that it will not work here.
        env: what its environment holds beside this program's.
        owned: it ends when this program does, however that ends; otherwise it stays.
        cwd: where it works; None is where this program does.
        stop_signal: what it takes as "finish and go".
    """

    name: str
    argv: Sequence[str]
    directory: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    owned: bool = True
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    start_deadline_s: float = 30.0
    stop_deadline_s: float = 15.0
    refuses: Callable[[], bool] = lambda: False
    _child: subprocess.Popen[bytes] | None = None
    _spawned: state.Identity | None = None

    @property
    def log_path(self) -> Path:
        """Where everything it prints goes."""
        return self.directory / f"{self.name}.log"

    @property
    def pid(self) -> int | None:
        """Its process id, while it lives."""
        identity = self._identity()
        return identity.pid if identity else None

    @property
    def running(self) -> bool:
        """Whether it lives, started by this program or an earlier one."""
        return self._identity() is not None

    def start(self) -> None:
        """Spawn it and wait until it is ready.

        Raises:
            AlreadyRunning: it is alive from an earlier start.
            ProcessFailed: it ended, or was not ready in time; nothing of it is left.
        """
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> None:
        """Start it without waiting. One whose owner was killed is ended first.

        Raises:
            AlreadyRunning: it is alive from an earlier start.
        """
        record = state.read(self.directory, self.name)
        if record is not None and record.orphaned:
            self.stop()
        if (identity := self._identity()) is not None:
            raise AlreadyRunning(f"{self.name} is running already, as process {identity.pid}")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - the project's own servers and services
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                cwd=self.cwd,
                start_new_session=True,
            )
        self._child = child
        self._spawned = identity = state.Identity.of(child.pid)
        if identity is None:
            return  # gone at once; waiting for it says why
        if self.owned:
            guard.watch(identity, stop_signal=self.stop_signal, deadline_s=self.stop_deadline_s)
        owner = state.Identity.of(os.getpid()) if self.owned else None
        state.write(
            self.directory,
            state.Record(self.name, identity, owner, self.stop_signal, self.stop_deadline_s),
        )

    def wait_until_ready(self) -> None:
        """Return when it answers.

        Raises:
            ProcessFailed: it ended, refuses, or was not ready in time; nothing of it is left.
        """
        began = monotonic()
        if unready([self]):
            self.kill()
            self._fail(f"was not ready after {monotonic() - began:.1f} s")

    def see_that_it_lives(self) -> None:
        """Return where it does.

        Raises:
            ProcessFailed: it ended before it was ready.
        """
        if not self.running:
            code = self._child.poll() if self._child else None
            self._fail(f"ended with code {code} before it was ready")

    def listens_on(self, port: int) -> bool:
        """Whether this very process, not another on the same machine, listens on the TCP port."""
        identity = self._identity()
        process = identity.process() if identity else None
        if process is None:
            return False
        try:
            sockets = process.net_connections("tcp")
        except psutil.NoSuchProcess:
            return False
        return any(s.status == psutil.CONN_LISTEN and s.laddr.port == port for s in sockets)

    def stop(self) -> None:
        """Ask it to finish, wait, and end it by force when it takes too long.

        Raises:
            ProcessFailed: not even SIGKILL ended it.
        """
        identity = self._identity()
        gone = identity is None or ending.end(
            identity, stop_signal=self.stop_signal, deadline_s=self.stop_deadline_s
        )
        self._forget(gone=gone)

    def kill(self) -> None:
        """SIGKILL to it and everything it started, and wait until all of it is gone.

        Raises:
            ProcessFailed: something survived.
        """
        identity = self._identity()
        self._forget(gone=identity is None or ending.kill(identity))

    def _identity(self) -> state.Identity | None:
        """The living process: the one spawned here, else the one on record."""
        if self._spawned is not None and self._spawned.process():
            return self._spawned
        record = state.read(self.directory, self.name)
        return record.identity if record and record.identity.process() else None

    def _forget(self, *, gone: bool) -> None:
        if not gone:
            raise ProcessFailed(f"{self.name} (process {self.pid}) survived SIGKILL")
        if self._spawned is not None:
            guard.release(self._spawned)
            self._spawned = None
        if self._child is not None:
            self._child.wait()  # it has ended; this takes its zombie away
            self._child = None
        state.forget(self.directory, self.name)

    def _fail(self, what: str) -> None:
        self._forget(gone=True)
        tail = _tail(self.log_path)
        raise ProcessFailed("\n".join([f"{self.name} {what}. The end of {self.log_path}:", *tail]))


def unready(processes: Sequence[ManagedProcess]) -> list[ManagedProcess]:
    """Wait for processes, side by side, until each answers, refuses, or had its time.

    Returns:
        Those that do not answer, in their order; they run on.

    Raises:
        ProcessFailed: one ended.
    """
    began = monotonic()
    waiting, given_up = list(processes), list[ManagedProcess]()
    while waiting:
        for process in tuple(waiting):
            process.see_that_it_lives()
            if process.ready():
                waiting.remove(process)
            elif process.refuses() or monotonic() > began + process.start_deadline_s:
                waiting.remove(process)
                given_up.append(process)
        if waiting:
            pause(_LOOK_EVERY_S)
    return [process for process in processes if process in given_up]


def stop_together(processes: Sequence[ManagedProcess]) -> None:
    """Stop processes of which none stands on another, side by side.

    Raises:
        ProcessFailed: not even SIGKILL ended one of them; the others are gone.
    """
    with ThreadPoolExecutor(len(processes)) as threads:
        ended = [threads.submit(process.stop) for process in processes]
    for one in ended:
        one.result()


def stop_recorded(directory: Path, record: state.Record) -> None:
    """Stop a process that another program started, by what is on record about it.

    Raises:
        ProcessFailed: not even SIGKILL ended it.
    """
    gone = ending.end(
        record.identity, stop_signal=record.stop_signal, deadline_s=record.stop_deadline_s
    )
    if not gone:
        raise ProcessFailed(f"{record.name} (process {record.identity.pid}) survived SIGKILL")
    state.forget(directory, record.name)


def _tail(path: Path) -> list[str]:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _TAIL_MAX_BYTES))
        return log.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
