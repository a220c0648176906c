"""A managed process starts once, is found again, is never mistaken, and ends with all it began."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

import psutil
import pytest

from velro.stack import state
from velro.stack.guard import guard
from velro.stack.process import (
    AlreadyRunning,
    ManagedProcess,
    ProcessFailed,
    stop_recorded,
    unready,
)
from velro.stack.secret_file import secrets_for

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

# It says by a file that it is there, and ends when asked to.
PATIENT = "import pathlib, signal; pathlib.Path('ready').touch(); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {PATIENT}"
# Its child is in a session of its own, as PostgreSQL's are.
PARENT = f"""
import pathlib, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {STUBBORN!r}], start_new_session=True)
pathlib.Path("child").write_text(str(child.pid))
child.wait()
"""
DEADLINE_S = 45.0


def eventually(holds: Callable[[], bool]) -> None:
    deadline = monotonic() + DEADLINE_S
    while not holds():
        assert monotonic() < deadline, "it did not come true in time"
        sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def python(directory: Path, code: str, *, owned: bool = True) -> ManagedProcess:
    return ManagedProcess(
        name="patient",
        argv=[sys.executable, "-c", code],
        directory=directory,
        cwd=directory,
        ready=(directory / "ready").exists,
        owned=owned,
    )


@pytest.fixture
def process(tmp_path: Path) -> Generator[ManagedProcess]:
    process = python(tmp_path, PATIENT)
    yield process
    process.kill()


def test_it_runs_from_start_to_stop(process: ManagedProcess) -> None:
    process.start()
    pid = process.pid
    assert process.running
    assert pid is not None
    process.stop()
    assert not process.running
    assert gone(pid)


def test_it_is_found_by_another_object_and_not_started_twice(process: ManagedProcess) -> None:
    process.start()
    other = python(process.directory, PATIENT)
    assert other.pid == process.pid
    with pytest.raises(AlreadyRunning, match=f"patient is running already, as process {other.pid}"):
        other.start()
    other.stop()
    assert not process.running


def test_it_can_be_started_again(process: ManagedProcess) -> None:
    process.start()
    first = process.pid
    process.kill()
    process.start()
    assert process.pid != first


def test_it_is_stopped_though_its_record_was_removed(process: ManagedProcess) -> None:
    process.start()
    pid = process.pid
    assert pid is not None
    state.forget(process.directory, "patient")
    process.stop()
    assert gone(pid)


def test_one_that_ends_before_it_is_ready_shows_the_end_of_its_log(tmp_path: Path) -> None:
    process = python(tmp_path, "print('the disk is full'); raise SystemExit(7)")
    with pytest.raises(ProcessFailed, match=r"patient ended with code 7 .*\n.*the disk is full"):
        process.start()
    assert not process.running


def test_one_that_is_not_ready_in_time_is_ended(tmp_path: Path) -> None:
    process = python(tmp_path, "import signal; signal.pause()")
    process.start_deadline_s = 0.2
    with pytest.raises(ProcessFailed, match=r"patient was not ready after 0\.\d s"):
        process.start()
    assert state.living(tmp_path) == []


@pytest.fixture
def silent(tmp_path: Path) -> Generator[list[ManagedProcess]]:
    """Two that run and never become ready."""
    processes = [python(tmp_path / name, "import signal; signal.pause()") for name in "ab"]
    for process in processes:
        process.directory.mkdir()
        process.spawn()
    yield processes
    for process in processes:
        process.kill()


def test_those_that_are_not_ready_in_time_are_left_running(silent: list[ManagedProcess]) -> None:
    for process in silent:
        process.start_deadline_s = 0.2
    assert unready(silent) == silent
    assert all(process.running for process in silent)


def test_they_are_waited_for_side_by_side(silent: list[ManagedProcess]) -> None:
    asked: list[str] = []

    def second_says_no() -> bool:
        asked.append("second")
        return False

    silent[0].refuses = lambda: "second" in asked  # the first is done once the second was looked at
    silent[0].start_deadline_s = float("inf")
    silent[1].ready = second_says_no
    silent[1].refuses = lambda: True
    assert unready(silent) == silent


def test_one_that_refuses_is_not_waited_for(silent: list[ManagedProcess]) -> None:
    silent[0].refuses = lambda: True
    silent[0].start_deadline_s = float("inf")
    assert unready(silent[:1]) == silent[:1]


def test_one_that_does_not_listen_to_the_signal_is_killed(tmp_path: Path) -> None:
    process = python(tmp_path, STUBBORN)
    process.stop_deadline_s = 0.2
    process.start()
    pid = process.pid
    assert pid is not None
    process.stop()
    assert gone(pid)


@pytest.mark.parametrize("way", [ManagedProcess.kill, ManagedProcess.stop])
def test_what_it_started_in_sessions_of_their_own_ends_with_it(
    tmp_path: Path, way: Callable[[ManagedProcess], None]
) -> None:
    process = python(tmp_path, PARENT)
    process.start()
    child = int((tmp_path / "child").read_text())
    assert not gone(child)
    way(process)
    assert gone(child)


def test_a_later_process_of_the_same_pid_is_another() -> None:
    mine = state.Identity.of(os.getpid())
    assert mine is not None
    assert mine.process() is not None
    assert state.Identity(mine.pid, f"{mine.born}0").process() is None


def test_a_process_that_took_the_pid_is_left_alone(process: ManagedProcess) -> None:
    process.start()
    process.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        state.write(
            process.directory,
            state.Record("patient", state.Identity(stranger.pid, "once upon a time"), None, 15, 1),
        )
        assert not process.running
        process.kill()
        assert stranger.poll() is None
        stranger.communicate(b"\n", timeout=DEADLINE_S)
    assert stranger.returncode == 0


def test_every_living_process_of_a_directory_is_known_and_can_be_stopped(tmp_path: Path) -> None:
    process = python(tmp_path, PATIENT, owned=False)
    process.start()
    (record,) = state.living(tmp_path)
    assert (record.name, record.identity.pid) == ("patient", process.pid)
    assert not record.orphaned
    stop_recorded(tmp_path, record)
    assert state.living(tmp_path) == []
    process.stop()


def test_an_orphan_whose_owner_was_killed_is_ended_before_the_next_start(tmp_path: Path) -> None:
    process = python(tmp_path, PATIENT, owned=False)
    process.start()
    orphan = process.pid
    assert orphan is not None
    record = state.read(tmp_path, "patient")
    assert record is not None
    lost = state.Identity(2**22 + 1, "gone")
    state.write(tmp_path, state.Record("patient", record.identity, lost, 15, 1))

    later = python(tmp_path, PATIENT)
    later.start()
    assert gone(orphan)
    later.stop()
    process.stop()


OWNER = """
import pathlib, sys, signal
from tests_process import python, PATIENT, STUBBORN
directory = pathlib.Path(sys.argv[1])
process = python(directory, PATIENT, owned=sys.argv[2] == "owned")
process.start()
print(process.pid, flush=True)
signal.pause()
"""


def owner(directory: Path, kind: str) -> subprocess.Popen[str]:
    code = OWNER.replace("tests_process", Path(__file__).stem)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(directory), kind],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )


def pid_from(program: subprocess.Popen[str]) -> int:
    assert program.stdout is not None
    return int(program.stdout.readline())


@pytest.mark.parametrize(
    "how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL], ids=lambda how: how.name
)
def test_an_owned_process_ends_with_its_program_however_that_ends(
    tmp_path: Path, how: signal.Signals
) -> None:
    with owner(tmp_path, "owned") as program:
        pid = pid_from(program)
        program.send_signal(how)
        program.communicate(timeout=DEADLINE_S)
    eventually(lambda: gone(pid))


def test_a_detached_process_outlives_its_program(tmp_path: Path) -> None:
    with owner(tmp_path, "detached") as program:
        pid = pid_from(program)
        program.kill()
        program.communicate(timeout=DEADLINE_S)
    process = python(tmp_path, PATIENT)
    assert process.pid == pid
    process.stop()
    assert gone(pid)


def test_another_guard_takes_over_where_somebody_ended_the_first(process: ManagedProcess) -> None:
    process.start()
    first = guard.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    eventually(lambda: gone(first))
    process.stop()
    process.start()
    second = guard.pid
    assert second not in {None, first}


def test_secrets_are_made_once_and_only_their_owner_can_read_them(tmp_path: Path) -> None:
    path = tmp_path / "below" / "secrets.json"
    first = secrets_for(path, ["postgres"])
    both = secrets_for(path, ["postgres", "storage"])
    assert both["postgres"] == first["postgres"]
    assert both["storage"] != both["postgres"]
    assert secrets_for(path, ["storage"]) == both == json.loads(path.read_text())
    assert path.stat().st_mode & 0o777 == 0o600
