"""nats-server with JetStream, syncing before it acknowledges."""

from __future__ import annotations

import shutil
import sys
import urllib.error
import urllib.request
from pathlib import Path

from velro.stack.process import ManagedProcess


def program(name: str) -> str:
    """The path of a program that a wheel installed beside this Python."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else (shutil.which(name) or name)


def answers(url: str, *, status: int = 200) -> bool:
    """Whether an HTTP GET on loopback gets this status."""
    try:
        with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310 - an http URL of ours
            return answer.status == status
    except urllib.error.HTTPError as error:
        return error.code == status
    except OSError:
        return False


def nats_server(
    directory: Path, *, port: int, monitor_port: int, owned: bool, name: str = "nats"
) -> ManagedProcess:
    """A NATS server on loopback, with its data and configuration under `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    config = directory / f"{name}.conf"
    config.write_text(
        f"""server_name: velro
listen: 127.0.0.1:{port}
http: 127.0.0.1:{monitor_port}
jetstream {{
  store_dir: "{directory / name}"
  sync_interval: always
}}
"""
    )
    return ManagedProcess(
        name=name,
        argv=[program("nats-server"), "-c", str(config)],
        directory=directory,
        ready=lambda: answers(f"http://127.0.0.1:{monitor_port}/healthz"),
        owned=owned,
    )
