"""The OpenAPI document against what the service really answers."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import MediaLost, MigrationCompleted
from tests.generation_events import (
    CANCELLED,
    DIES_AT,
    FAILED,
    REQUESTED,
    STARTED,
    SUBMITTED,
    completed,
    media_stored,
    storage_failed,
)
from tests.http_service import BODY
from tests.http_world import Api, api

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx

    from shared.contracts.subjects import Subjects


class Document:
    """Holds answers against an OpenAPI document."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._components = document["components"]
        self._paths: dict[str, Any] = document["paths"]
        self.held: set[tuple[str, str, str]] = set()

    def hold(self, answer: httpx.Response) -> None:
        """Fails where the document does not say that this may be answered to this request."""
        method, path = answer.request.method.lower(), answer.request.url.path
        template = next(
            each
            for each in self._paths
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", each), path) and method in self._paths[each]
        )
        status = str(answer.status_code)
        said = self._paths[template][method]["responses"]
        assert status in said, f"{method} {template} answers {status}: {answer.text}"
        self.held.add((method, template, status))
        contents = said[status].get("content", {})
        if not contents:
            assert not answer.content
            return
        media_type = answer.headers["content-type"].partition(";")[0]
        assert media_type in contents, f"{method} {template} {status} is {media_type}"
        if media_type.endswith("json"):
            self._hold_shape(answer.json(), contents[media_type]["schema"])

    def _hold_shape(self, instance: dict[str, Any], schema: dict[str, Any]) -> None:
        whole = {"components": self._components, **schema}
        validator: Any = jsonschema.Draft202012Validator(whole)  # typed in part only
        validator.validate(instance)
        name = schema["$ref"].rpartition("/")[2]
        told = self._components["schemas"][name]
        # Problems may say more; every other answer says what is documented and nothing else.
        if not told.get("additionalProperties"):
            assert instance.keys() == told["properties"].keys()


@pytest.fixture
async def velro(
    nats_url: str, stream: str, subjects: Subjects, database: str
) -> AsyncGenerator[Api]:
    async with api(nats_url, stream, subjects, database, max_watchers=1) as opened:
        yield opened


async def test_every_answer_is_one_that_the_document_tells_of(velro: Api) -> None:
    document = Document((await velro.client.get("/openapi.json")).json())

    async def held(answer: httpx.Response) -> None:
        await answer.aread()
        document.hold(answer)

    velro.client.event_hooks["response"].append(held)
    position = await _histories(velro)
    for generation_id in ("requested", "running", "failed", "cancelled", "kept", "lost", "partly"):
        path = f"/v1/generations/{generation_id}"
        at_least = {"at_least": position, "wait_s": 20, "timeout_s": 0.05}
        for below in ("", "/events", "/outputs/0", "/outputs/1", "/watch"):
            await velro.client.get(path + below, params=at_least)
        seen = {"Last-Event-ID": str(position)}
        await velro.client.get(f"{path}/watch", params={"timeout_s": 0.05}, headers=seen)
        await velro.client.post(f"{path}/cancel", json={"reason": "changed my mind"})
    velro.clock.at = DIES_AT + timedelta(hours=1)
    await velro.client.get("/v1/generations/partly/outputs/1")
    for query in ("", "?limit=2", "?limit=0", "?cursor=x", "?at_least=9999&wait_s=0.01"):
        await velro.client.get(f"/v1/generations{query}")
    await _requests(velro.client)
    for path in ("/healthz", "/readyz", "/problems/too-large", "/problems/none"):
        await velro.client.get(path)
    # What a story this short can reach; a test that reaches less proves less.
    assert document.held >= {
        ("post", "/v1/generations", "200"),
        ("post", "/v1/generations", "202"),
        ("post", "/v1/generations", "400"),
        ("post", "/v1/generations", "413"),
        ("post", "/v1/generations", "422"),
        ("get", "/v1/generations", "200"),
        ("get", "/v1/generations", "422"),
        ("get", "/v1/generations", "504"),
        ("get", "/v1/generations/{generation_id}", "200"),
        ("post", "/v1/generations/{generation_id}/cancel", "200"),
        ("post", "/v1/generations/{generation_id}/cancel", "409"),
        ("get", "/v1/generations/{generation_id}/events", "200"),
        ("get", "/v1/generations/{generation_id}/outputs/{index}", "307"),
        ("get", "/v1/generations/{generation_id}/outputs/{index}", "404"),
        ("get", "/v1/generations/{generation_id}/outputs/{index}", "410"),
        ("get", "/v1/generations/{generation_id}/watch", "200"),
        ("get", "/v1/generations/{generation_id}/watch", "204"),
        ("post", "/v1/webhooks/{provider}/{generation_id}/{token}", "503"),
        ("get", "/problems/{name}", "404"),
    }


async def _histories(velro: Api) -> int:
    """One generation of every kind; the position of the last event."""
    say = velro.world.say
    lost = MediaLost(index=0, attempt=1, reason=ReasonCode.SOURCE_EXPIRED, detail="gone")
    await say("requested", REQUESTED)
    await say("running", REQUESTED, STARTED, SUBMITTED)
    await say("failed", REQUESTED, STARTED, FAILED)
    await say("cancelled", REQUESTED, CANCELLED)
    await say("kept", REQUESTED, completed("bucket"))
    await say("lost", completed("link"), storage_failed(0), lost)
    await say("partly", REQUESTED, completed("link", "link"), media_stored(0))
    migrated = MigrationCompleted(file_count=1, total_size_bytes=10)
    return await say("migrated", REQUESTED, completed("link"), media_stored(0), migrated)


async def _requests(client: httpx.AsyncClient) -> None:
    key = {"Idempotency-Key": "k"}
    for change in ({}, {}, {"model": "another"}):
        await client.post("/v1/generations", json=BODY | change, headers=key)
    json = {"content-type": "application/json"}
    for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'"' + b"x" * 3_000_000 + b'"'):
        await client.post("/v1/generations", content=body, headers=json)
        await client.post("/v1/generations/requested/cancel", content=body, headers=json)
        await client.post("/v1/webhooks/sandbox/requested/00ff", content=body, headers=json)
    for change in ({"provider": "nobody"}, {"user_id": ".."}, {"input": {"p": "x" * 800_000}}):
        await client.post("/v1/generations", json=BODY | change)
    await client.post("/v1/generations/nobodys/cancel")
    await client.post("/v1/webhooks/sandbox/requested/none-of-ours")
