"""nats-server with JetStream, syncing before it acknowledges."""

from __future__ import annotations

import shutil
import sys
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

from velro.stack.process import ManagedProcess

# A proxy from the environment is for the world outside, not for loopback.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def program(name: str) -> str:
    """The path of a program that a wheel installed beside this Python."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else (shutil.which(name) or name)


def answers(url: str, *, status: int = 200) -> bool:
    """Whether an HTTP GET on loopback gets this status within a second."""
    return _asked(url)[0] == status


def answer_of(url: str) -> str:
    """What an HTTP GET on loopback gets within a second, whatever its status; empty: nothing."""
    return _asked(url)[1]


def _asked(url: str) -> tuple[int, str]:
    try:
        with _DIRECT.open(url, timeout=1) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, HTTPException):
        return 0, ""


def nats_server(
    directory: Path, *, port: int, monitor_port: int, owned: bool, name: str = "nats"
) -> ManagedProcess:
    """A NATS server on loopback, with its data and configuration under `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / f"{name}.conf"
    # What a path may hold, its configuration may not: so it runs in the folder, and names no other.
    config.write_text(
        f"""server_name: velro
listen: 127.0.0.1:{port}
http: 127.0.0.1:{monitor_port}
jetstream {{
  store_dir: {name}
  sync_interval: always
}}
"""
    )
    server = ManagedProcess(
        name=name,
        argv=[program("nats-server"), "-c", str(config)],
        directory=directory,
        cwd=directory,
        # /healthz answers when streams are recovered. Whose answer it is has to be asked: where
        # another server has taken the port, it would answer for ours.
        ready=lambda: (
            answers(f"http://127.0.0.1:{monitor_port}/healthz") and server.listens_on(port)
        ),
        owned=owned,
    )
    return server
