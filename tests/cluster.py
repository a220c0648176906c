"""A NATS cluster of three on loopback, each server a process to kill."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from velro.stack import ports
from velro.stack.nats import answers, program
from velro.stack.process import ManagedProcess

if TYPE_CHECKING:
    from pathlib import Path

NAMES: Final = ("one", "two", "three")


class NatsCluster:
    """Three servers that find each other; each syncs before it acknowledges."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        wanted = [f"{name}-{use}" for name in NAMES for use in ("client", "monitor", "route")]
        self._ports = ports.choose(dict.fromkeys(wanted), directory / "ports.json")
        self.servers = {name: self._server(name, directory) for name in NAMES}

    @property
    def urls(self) -> str:
        return ",".join(f"nats://127.0.0.1:{self._ports[f'{name}-client']}" for name in NAMES)

    def start(self) -> None:
        for server in self.servers.values():
            server.spawn()
        for server in self.servers.values():
            server.wait_until_ready()

    def kill(self) -> None:
        for server in self.servers.values():
            server.kill()

    def _server(self, name: str, directory: Path) -> ManagedProcess:
        routes = [f"nats://127.0.0.1:{self._ports[f'{each}-route']}" for each in NAMES]
        monitor = self._ports[f"{name}-monitor"]
        config = directory / f"{name}.conf"
        config.write_text(
            f"""server_name: {name}
listen: 127.0.0.1:{self._ports[f"{name}-client"]}
http: 127.0.0.1:{monitor}
jetstream {{
  store_dir: {json.dumps(str(directory / name))}
  sync_interval: always
}}
cluster {{
  name: velro
  listen: 127.0.0.1:{self._ports[f"{name}-route"]}
  routes: {json.dumps(routes)}
}}
"""
        )
        return ManagedProcess(
            name=name,
            argv=[program("nats-server"), "-c", str(config)],
            directory=directory,
            cwd=directory,
            ready=lambda: answers(f"http://127.0.0.1:{monitor}/healthz"),
        )
