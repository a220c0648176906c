"""A server that refuses the runner for a while: it takes work again when it is let in again."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from tests.runner_world import Work, eventually, runner_world
from velro.stack import ports
from velro.stack.nats import answers, program
from velro.stack.process import ManagedProcess

if TYPE_CHECKING:
    from pathlib import Path

    from shared.contracts.subjects import Subjects


def _configure(file: Path, *, port: int, monitor: int, runner_password: str) -> None:
    file.write_text(
        f"""listen: 127.0.0.1:{port}
http: 127.0.0.1:{monitor}
jetstream {{ store_dir: "{file.parent / "store"}" }}
authorization {{
  users: [
    {{ user: test, password: test }}
    {{ user: runner, password: "{runner_password}" }}
  ]
}}
"""
    )


async def test_a_runner_that_is_refused_for_a_while_takes_work_again(
    tmp_path: Path, subjects: Subjects
) -> None:
    chosen = ports.choose(dict.fromkeys(("port", "monitor")), tmp_path / "ports.json")
    config = tmp_path / "nats.conf"
    _configure(config, **chosen, runner_password="right")
    server = ManagedProcess(
        name="nats",
        argv=[program("nats-server"), "-c", str(config)],
        directory=tmp_path,
        ready=lambda: answers(f"http://127.0.0.1:{chosen['monitor']}/healthz"),
    )
    server.start()

    def reload(password: str) -> None:
        _configure(config, **chosen, runner_password=password)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGHUP)

    ticks = 0

    async def heartbeat() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    beating = asyncio.create_task(heartbeat())
    try:
        url = f"127.0.0.1:{chosen['port']}"
        async with runner_world(f"nats://test:test@{url}", "AUTH", subjects) as world:
            world.url = f"nats://runner:right@{url}"
            work = Work()
            async with world.running(work) as (runner, _):
                await world.request("g1")
                await eventually(lambda: work.done == ["g1"])
                reload("wrong")
                await eventually(lambda: runner.health.problem is not None)
                while_refused = ticks
                await eventually(lambda: ticks > while_refused + 200)
                assert runner.health.problem is not None
                reload("right")
                await world.request("g2")
                await eventually(lambda: "g2" in work.done, deadline_s=40)
                await eventually(lambda: runner.health.problem is None)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        server.stop()
