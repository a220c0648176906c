"""Which processes belong to a stack: one small file each, so that a later program finds them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

_SUFFIX = ".pid.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """One process for good: a later one of the same pid is another.

    Attributes:
        pid: its process id, which is its process group's too where we started it.
        born: tells it from every other process that ever had this pid.
    """

    pid: int
    born: str

    @classmethod
    def of(cls, pid: int) -> Identity | None:
        """The process that has this pid now; None where there is none."""
        try:
            return cls(pid, _born(pid))
        except (psutil.NoSuchProcess, OSError):
            return None

    def process(self) -> psutil.Process | None:
        """The process, while it lives; a zombie does not."""
        try:
            process = psutil.Process(self.pid)
            lives = process.status() != psutil.STATUS_ZOMBIE and _born(self.pid) == self.born
        except (psutil.NoSuchProcess, OSError):
            return None
        return process if lives else None


@dataclass(frozen=True, slots=True)
class Record:
    """What is known about a process that was started.

    Attributes:
        name: unique in its stack.
        owner: the program that it must not outlive; None for one that stays.
        stop_signal: the number of the signal that asks it to finish.
        stop_deadline_s: how long it may take to do so.
    """

    name: str
    identity: Identity
    owner: Identity | None
    stop_signal: int
    stop_deadline_s: float

    @property
    def orphaned(self) -> bool:
        """Whether the program that it must not outlive is gone."""
        return self.owner is not None and self.owner.process() is None


def write(directory: Path, record: Record) -> None:
    """Remember a process. The file is whole or not there."""
    path = directory / f"{record.name}{_SUFFIX}"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(asdict(record)))
    fresh.replace(path)


def read(directory: Path, name: str) -> Record | None:
    """What was remembered under a name, whether or not it lives."""
    try:
        found = json.loads((directory / f"{name}{_SUFFIX}").read_text())
    except FileNotFoundError:
        return None
    owner = found["owner"]
    return Record(
        name=found["name"],
        identity=Identity(**found["identity"]),
        owner=None if owner is None else Identity(**owner),
        stop_signal=found["stop_signal"],
        stop_deadline_s=found["stop_deadline_s"],
    )


def forget(directory: Path, name: str) -> None:
    """Remove what was remembered under a name."""
    (directory / f"{name}{_SUFFIX}").unlink(missing_ok=True)


def living(directory: Path) -> list[Record]:
    """Every process of this directory that lives, in the order in which they were started."""
    files = sorted(directory.glob(f"*{_SUFFIX}"), key=lambda path: path.stat().st_mtime_ns)
    records = [read(directory, path.name.removesuffix(_SUFFIX)) for path in files]
    return [record for record in records if record and record.identity.process()]


def _born(pid: int) -> str:
    # psutil's create_time() is the start since boot added to the moment of the boot, which moves
    # whenever the clock is set. Linux tells the former and names the boot (proc_pid_stat(5)).
    if sys.platform == "linux":
        since_boot = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
        return f"{since_boot}@{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"
    return repr(psutil.Process(pid).create_time())
