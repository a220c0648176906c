"""What the demo looks at from outside: the API, the provider's books, the bucket, the tables."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from shared.object_store.keys import is_object_key
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from collections.abc import Sequence

    import httpx

    from velro.client import Api, Generation
    from velro.demo.deployment import Deployment

# Written by whoever works on a row, and no part of what the log says.
_LEASES: Final = {"ready", "lease_owner", "lease_until"}
_BOOKKEEPING: Final = {"projection_checkpoint", "parked_events"}


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is checked is read here."""

    deployment: Deployment
    api: Api
    web: httpx.AsyncClient

    async def served(self, generation: Generation) -> list[str]:
        """The sha256 of each output as the provider made it, by index."""
        stats = (await self.web.get(f"{self.deployment.sandbox_url}/_sandbox/stats")).json()
        requests = [each for each in stats["requests"] if each["origin"] == generation.id]
        return [output["sha256"] for output in requests[-1]["outputs"]]

    async def paid_calls(self, generation: Generation) -> int:
        """How often the provider took this generation."""
        stats = (await self.web.get(f"{self.deployment.sandbox_url}/_sandbox/stats")).json()
        return int(stats["taken"].get(generation.id, 0))

    async def fetched(self, generation: Generation) -> list[str]:
        """The sha256 of what each of its URLs answers with; empty where one does not answer."""
        outside = [self.deployment.outside(url) for url in generation.output_urls]
        answers = await asyncio.gather(*(self.web.get(url) for url in outside))
        return [
            hashlib.sha256(answer.content).hexdigest() if answer.is_success else ""
            for answer in answers
        ]

    async def objects(self) -> dict[str, str]:
        """Every object in the bucket: the sha256 of its bytes, by key."""
        return await asyncio.to_thread(self._objects)

    def _objects(self) -> dict[str, str]:
        address = self.deployment.s3
        client = s3_client(address)
        found: dict[str, str] = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=address.bucket):
            for entry in page.get("Contents", []):
                if not is_object_key(entry["Key"]):
                    continue  # a service is finding out what the bucket can do
                body = client.get_object(Bucket=address.bucket, Key=entry["Key"])["Body"].read()
                found[entry["Key"]] = hashlib.sha256(body).hexdigest()
        client.close()
        return found

    async def rows(self, read_model: str) -> dict[str, list[str]]:
        """Every row of a read model's tables, as text, without what is no read model."""
        connection = await self._database(read_model)
        try:
            tables = await connection.fetch(
                "select tablename from pg_tables where schemaname = $1", read_model
            )
            names = sorted({str(row["tablename"]) for row in tables} - _BOOKKEEPING)
            return {name: await self._rows_of(connection, read_model, name) for name in names}
        finally:
            await connection.close()

    async def leased(self) -> set[tuple[str, int]]:
        """The outputs that a storage worker holds, or held when it was killed."""
        connection = await self._database("storage")
        try:
            rows = await connection.fetch(
                "select generation_id, output_index from storage.backlog where lease_until > now()"
            )
            return {(str(row["generation_id"]), int(row["output_index"])) for row in rows}
        finally:
            await connection.close()

    async def drop(self, read_model: str) -> None:
        """Throw the tables of a read model away, with everything in them."""
        connection = await self._database(read_model)
        try:
            await connection.execute(f'drop schema "{read_model}" cascade')
        finally:
            await connection.close()

    async def _rows_of(self, connection: Any, schema: str, table: str) -> list[str]:  # noqa: ANN401 - asyncpg's connection
        without = ", ".join(f"'{name}'" for name in sorted(_LEASES))
        rows = await connection.fetch(
            f'select (to_jsonb(t) - array[{without}])::text as row from "{schema}"."{table}" t'  # noqa: S608 - names of ours
        )
        return sorted(str(row["row"]) for row in rows)

    async def _database(self, read_model: str) -> Any:  # noqa: ANN401 - asyncpg's connection
        return await asyncpg.connect(self.deployment.dsn(read_model))


def kinds(events: Sequence[dict[str, Any]], of: str) -> list[dict[str, Any]]:
    """The events of one type, oldest first."""
    return [event for event in events if event["type"] == of]
