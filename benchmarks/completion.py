"""What Velro adds between the provider's answer and COMPLETED being readable, at 50 a second.

The provider's answer is a signed callback, as fal sends it, to a service process of its own;
readable means that the API answers COMPLETED. Copying at once is off: what a bucket takes is not
Velro's. Beside it, in the same run and at the same pace: one acknowledged publish and one
committed upsert of a row of that size, one after the other, which is the least that says as much.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from dataclasses import dataclass, field
from statistics import quantiles
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import httpx
from fastapi import FastAPI, Request
from nats.js.api import StreamConfig

from benchmarks.figures import Figure, middle
from shared.messaging.connection import connected
from shared.messaging.jetstream import ensure_stream, jetstream_of
from shared.serving import serving
from velro.local import Local
from velro.sandbox.webhooks import SigningKey

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from velro.stack.addresses import Addresses

PER_SECOND: Final = 50
REPEATS: Final = 3
GENERATIONS: Final = 500


@dataclass(slots=True)
class _Provider:
    """A provider that takes everything, and finishes when the benchmark says so."""

    key: SigningKey = field(default_factory=SigningKey)
    taken: dict[str, asyncio.Future[tuple[str, str]]] = field(
        default_factory=dict[str, asyncio.Future[tuple[str, str]]]
    )

    def app(self) -> FastAPI:
        app = FastAPI()

        @app.get("/.well-known/jwks.json")
        async def jwks() -> dict[str, Any]:  # pyright: ignore[reportUnusedFunction] - a route
            return self.key.jwks()

        @app.post("/bench/painter")
        async def submit(request: Request) -> dict[str, str]:  # pyright: ignore[reportUnusedFunction] - a route
            name = str((await request.json())["name"])
            request_id = str(uuid.uuid4())
            self.taken[name].set_result((request_id, request.query_params["fal_webhook"]))
            base = f"{request.base_url}bench/painter/requests/{request_id}"
            return {
                "request_id": request_id,
                "status_url": f"{base}/status",
                "response_url": base,
                "cancel_url": f"{base}/cancel",
            }

        return app

    def callback(self, request_id: str) -> tuple[bytes, dict[str, str]]:
        url = f"https://v3.fal.media/files/{request_id}.png"
        body = json.dumps(
            {
                "request_id": request_id,
                "gateway_request_id": request_id,
                "status": "OK",
                "payload": {"images": [{"url": url, "content_type": "image/png"}]},
                "error": None,
            }
        ).encode()
        headers = self.key.headers(
            request_id=request_id, user_id="bench", timestamp=int(time.time()), body=body
        )
        return body, headers | {"Content-Type": "application/json"}


async def measure(room: Path) -> list[Figure]:
    """Complete 500 generations at 50 a second, three times; the medians of the quantiles."""
    provider = _Provider()
    async with serving(provider.app(), host="127.0.0.1", port=0) as port:
        local = Local(
            room,
            settings={
                "VELRO_SANDBOX_URL": f"http://127.0.0.1:{port}",
                "VELRO_STORE_BUDGET_S": "0",
                "VELRO_RUN_FIRST_POLL_S": "600",
                "VELRO_RUN_LONGEST_POLL_S": "600",
                "VELRO_RUNNER_WORKERS": str(2 * GENERATIONS),
            },
        )
        await asyncio.to_thread(local.start)
        try:
            runs = [await _run(local, provider, f"{number}") for number in range(REPEATS)]
            floors = [await _floor(local.stack.addresses) for _ in range(REPEATS)]
        finally:
            await asyncio.to_thread(local.stop)
    least = "one publish and one upsert, raw"
    return [
        Figure(
            f"completion_p{percent}",
            "ms",
            middle([_quantile(run, percent) for run in runs]),
            {least: middle([_quantile(floor, percent) for floor in floors])},
        )
        for percent in (50, 99)
    ]


async def _run(local: Local, provider: _Provider, run: str) -> list[float]:
    """Milliseconds from the callback's first byte to COMPLETED in an answer, one a generation."""
    async with httpx.AsyncClient(base_url=local.api_url, trust_env=False, timeout=30) as api:

        async def one(number: int) -> float:
            name = f"{run}-{number}"
            provider.taken[name] = asyncio.get_running_loop().create_future()
            asked = await api.post(
                "/v1/generations",
                json={
                    "user_id": "bench",
                    "provider": "sandbox",
                    "model": "bench/painter",
                    "input": {"name": name},
                },
            )
            asked.raise_for_status()
            request_id, url = await provider.taken[name]
            body, headers = provider.callback(request_id)
            started = perf_counter()
            told = await api.post(url, content=body, headers=headers)
            told.raise_for_status()
            path = f"/v1/generations/{asked.json()['id']}"
            found = await api.get(path, params={"at_least": told.json()["position"]})
            took_s = perf_counter() - started
            if found.json()["status"] != "completed":
                raise RuntimeError(f"{path} is {found.json()['status']}")
            return 1000 * took_s

        return await _at_pace(one)


async def _floor(addresses: Addresses) -> list[float]:
    """Milliseconds for one acknowledged publish and one committed upsert."""
    pool: Any = asyncpg.create_pool(addresses.generation_dsn, min_size=4, max_size=10)
    async with pool, connected(addresses.nats_url, name="floor") as connection:
        jetstream = jetstream_of(connection)
        await ensure_stream(jetstream, StreamConfig(name="FLOOR", subjects=["floor"]))
        await pool.execute("create table if not exists floor (id text primary key, row text)")
        row = "x" * 600

        async def one(_number: int) -> float:
            started = perf_counter()
            await jetstream.publish("floor", row.encode())
            await pool.execute(
                "insert into floor values ($1, $2) on conflict (id) do update set row = $2",
                str(uuid.uuid4()),
                row,
            )
            return 1000 * (perf_counter() - started)

        return await _at_pace(one)


async def _at_pace(one: Callable[[int], Awaitable[float]]) -> list[float]:
    """Start one every 20 ms, whatever those before are at."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.timeout(120), asyncio.TaskGroup() as running:
        tasks: list[asyncio.Task[float]] = []
        for number in range(GENERATIONS):
            await asyncio.sleep(max(0.0, begun + number / PER_SECOND - loop.time()))
            tasks.append(running.create_task(_awaited(one, number)))
    return [task.result() for task in tasks]


async def _awaited(one: Callable[[int], Awaitable[float]], number: int) -> float:
    return await one(number)


def _quantile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100)[percent - 1]
