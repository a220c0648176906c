"""compose.yaml, brought up beside whatever else runs, on free ports and under a name of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import TYPE_CHECKING

from velro.stack.nats import answers
from velro.stack.seaweedfs import S3Address, has_bucket, takes_objects

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
_COMPOSE = Path(sys.executable).with_name("docker-compose")
_PASSWORD = "velro-local"
_READY_WITHIN_S = 60.0


class Compose:
    """A `velro.demo.deployment.Deployment` on Docker."""

    def __init__(self, project: str, ports: Mapping[str, int]) -> None:
        self._project = project
        self._ports = ports
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VELRO_")},
            "DOCKER_BUILDKIT": "0",
            "VELRO_IMAGE": "velro:test",
            "VELRO_STORAGE_WORKERS": "2",
            "VELRO_NATS_PORT": str(ports["nats"]),
            "VELRO_POSTGRES_PORT": str(ports["postgres"]),
            "VELRO_S3_PORT": str(ports["s3"]),
            "VELRO_SANDBOX_PORT": str(ports["sandbox"]),
            "VELRO_HTTP_PORT": str(ports["api"]),
        }

    @property
    def api_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['api']}"

    @property
    def sandbox_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['sandbox']}"

    @property
    def s3(self) -> S3Address:
        url = f"http://127.0.0.1:{self._ports['s3']}"
        return S3Address(url, "velro", "velro-local-secret", "media")

    def dsn(self, read_model: str) -> str:
        role = f"velro_{read_model}"
        return f"postgresql://{role}:{_PASSWORD}@127.0.0.1:{self._ports['postgres']}/{role}"

    def settings(self) -> dict[str, str]:
        """What a command outside the containers needs to know."""
        return {
            "VELRO_NATS_URL": f"nats://127.0.0.1:{self._ports['nats']}",
            "VELRO_GENERATION_POSTGRES_DSN": self.dsn("generation"),
            "VELRO_STORAGE_POSTGRES_DSN": self.dsn("storage"),
        }

    def outside(self, url: str) -> str:
        return url.replace("http://sandbox:8090", self.sandbox_url, 1)

    def build(self) -> None:
        # The classic builder: it needs no plugin, which a machine may not have.
        self._run("docker", "build", "--network", "host", "-t", "velro:test", str(ROOT))

    def up(self) -> None:
        self._compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "120")

    def down(self) -> None:
        self._compose("down", "--volumes", "--remove-orphans", "--timeout", "20")

    def logs(self) -> str:
        return self._compose("logs", "--tail", "40")

    def stop_s3(self) -> bool:
        self._compose("stop", "seaweedfs")
        return not has_bucket(self.s3)

    def start_s3(self) -> None:
        self._compose("start", "seaweedfs")
        self._until_ready("seaweedfs", lambda: takes_objects(self.s3))

    def kill_storage(self) -> bool:
        self._compose("kill", "--signal", "SIGKILL", "storage")
        return "storage" not in self._compose("ps", "--services", "--status", "running").split()

    def start_storage(self) -> None:
        self._compose("up", "--detach", "--no-build", "--wait", "--no-deps", "storage")

    def api_is_ready(self) -> bool:
        return answers(f"{self.api_url}/readyz")

    def _until_ready(self, name: str, ready: object) -> None:
        assert callable(ready)
        deadline = monotonic() + _READY_WITHIN_S
        while not ready():
            if monotonic() > deadline:
                raise TimeoutError(f"{name} is not ready after {_READY_WITHIN_S:g} s")
            sleep(0.2)

    def _compose(self, *words: str) -> str:
        file = str(ROOT / "compose.yaml")
        return self._run(str(_COMPOSE), "-p", self._project, "-f", file, *words)

    def _run(self, *words: str) -> str:
        done = subprocess.run(
            words, env=self._environment, capture_output=True, text=True, timeout=400, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(words)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout
