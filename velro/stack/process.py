"""One child process with a name, a log, a way to see that it is ready, and a sure end."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import TYPE_CHECKING

import psutil

from shared.errors import VelroError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)


class ProcessFailed(VelroError):
    """A process ended or did not become ready in time; the message holds the end of its log."""


class AlreadyRunning(VelroError):
    """The process of an earlier start is alive: stop it first (`velro down`)."""


@dataclass(slots=True)
class ManagedProcess:
    """A process that is started, watched and ended by us, in a process group of its own.

    A file under `directory` names it by pid and moment of creation, so that a later program
    finds it again and never mistakes another process for it.

    Attributes:
        owned: it ends when the program that started it does, however that ends (Linux). Start
            it from the main thread: the kernel means the thread.
        stop_signal: what it takes as "finish and go".
        ready: says whether it answers.
    """

    name: str
    argv: Sequence[str]
    directory: Path
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    owned: bool = True
    sets_death_signal_itself: bool = False
    stop_signal: signal.Signals = signal.SIGTERM
    start_deadline_s: float = 30.0
    stop_deadline_s: float = 15.0
    _child: subprocess.Popen[bytes] | None = None

    @property
    def log_path(self) -> Path:
        """Where everything it prints goes."""
        return self.directory / f"{self.name}.log"

    @property
    def _record(self) -> Path:
        return self.directory / f"{self.name}.pid.json"

    @property
    def pid(self) -> int | None:
        """Its process id, while it lives."""
        process = self._process()
        return process.pid if process else None

    @property
    def running(self) -> bool:
        """Whether it lives, started by this program or an earlier one."""
        return self._process() is not None

    def start(self) -> None:
        """Spawn it and wait until it is ready.

        Raises:
            AlreadyRunning: it is alive from an earlier start.
            ProcessFailed: it ended, or was not ready in time; nothing of it is left.
        """
        self.spawn()
        self.wait_until_ready()

    def spawn(self) -> None:
        """Start it without waiting.

        Raises:
            AlreadyRunning: it is alive from an earlier start.
        """
        if (process := self._process()) is not None:
            raise AlreadyRunning(f"{self.name} is running already, as process {process.pid}")
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(  # noqa: S603 - the project's own servers and services
                list(self.argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **self.env},
                start_new_session=True,
                preexec_fn=self._die_with_parent(),  # noqa: PLW1509 - spawned before any thread is
            )
        try:
            created = psutil.Process(self._child.pid).create_time()
        except psutil.NoSuchProcess:
            return  # gone at once; waiting for it says why
        self._record.write_text(json.dumps({"pid": self._child.pid, "created": created}))

    def wait_until_ready(self) -> None:
        """Return when it answers.

        Raises:
            ProcessFailed: it ended, or was not ready in time; nothing of it is left.
        """
        deadline = monotonic() + self.start_deadline_s
        while not self.ready():
            if not self.running:
                code = self._child.poll() if self._child else None
                self._fail(f"ended with code {code} before it was ready")
            if monotonic() > deadline:
                self.kill()
                self._fail(f"was not ready after {self.start_deadline_s:g} s")
            sleep(0.05)

    def stop(self) -> None:
        """Ask it to finish, wait, and end it by force when it takes too long."""
        process = self._process()
        if process is not None:
            process.send_signal(self.stop_signal)
            if not self._gone(process, self.stop_deadline_s):
                self.kill()
        self._forget()

    def kill(self) -> None:
        """SIGKILL to its whole group, and wait until it is gone."""
        process = self._process()
        if process is not None:
            # It may end on its own between the look and the signal.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not self._gone(process, self.stop_deadline_s):
                raise ProcessFailed(f"{self.name} (process {process.pid}) survived SIGKILL")
        self._forget()

    def _process(self) -> psutil.Process | None:
        """The living process that the record means."""
        if self._child is not None and self._child.poll() is not None:
            return None
        try:
            record = json.loads(self._record.read_text())
            process = psutil.Process(record["pid"])
            same = process.create_time() == record["created"]
            alive = process.status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
            return None
        return process if same and alive else None

    def _gone(self, process: psutil.Process, deadline_s: float) -> bool:
        try:
            if self._child is not None and self._child.pid == process.pid:
                self._child.wait(deadline_s)
            else:
                process.wait(deadline_s)
        except (psutil.TimeoutExpired, subprocess.TimeoutExpired):
            return False
        return True

    def _forget(self) -> None:
        self._child = None
        self._record.unlink(missing_ok=True)

    def _fail(self, what: str) -> None:
        tail = self.log_path.read_text(errors="replace").splitlines()[-15:]
        self._forget()
        raise ProcessFailed("\n".join([f"{self.name} {what}. The end of its log:", *tail]))

    def _die_with_parent(self) -> Callable[[], None] | None:
        if not self.owned or self.sets_death_signal_itself or sys.platform != "linux":
            return None
        libc = ctypes.CDLL(None)
        stop_signal = int(self.stop_signal)
        return lambda: libc.prctl(_PR_SET_PDEATHSIG, stop_signal)
