"""Programs run as a user runs them: another process, its output, its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from velro.stack import state

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

_BIN = Path(sys.executable).parent


class Command:
    """A `velro` or a service command on data of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {
            # Whatever points a Velro elsewhere is not the test's.
            **{name: value for name, value in os.environ.items() if not name.startswith("VELRO_")},
            "VELRO_DIRECTORY": str(directory),
            "COLUMNS": "200",
            "NO_COLOR": "1",
        }

    def run(
        self,
        *words: str,
        deadline_s: float = 60,
        environment: Mapping[str, str] | None = None,
        program: str = "velro",
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(_BIN / program), *words],
            env={**self.environment, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=deadline_s,
            check=False,
        )

    def start(self, *words: str, output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as file:
            return subprocess.Popen(
                [str(_BIN / "velro"), *words],
                env=self.environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextmanager
def running(command: Command) -> Generator[Command]:
    """All of Velro, up on the command's directory, and nothing of it left afterwards."""
    up = command.run("up", "--detach", deadline_s=90)
    assert up.returncode == 0, up.stdout + up.stderr
    try:
        yield command
    finally:
        command.run("down", deadline_s=90)
        assert state.living(command.directory / "local") == []


def wait_until(true: Callable[[], bool], *, deadline_s: float) -> None:
    deadline = monotonic() + deadline_s
    while not true():
        if monotonic() > deadline:
            raise TimeoutError(f"not true within {deadline_s:g} s")
        sleep(0.05)
