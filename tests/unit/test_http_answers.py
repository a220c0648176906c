from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NoReturn, cast

import pytest

from generation_svc.adapters.http import health_routes
from generation_svc.adapters.http.problems import PROBLEMS
from shared.contracts.envelope import Context, seal
from shared.event_log.memory import MemoryLog
from tests.generation_events import REQUESTED, STARTED, completed, media_stored, storage_failed
from tests.http_service import HttpService, NoReadModel, now

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shared.contracts.events import AnyEvent


async def test_the_history_is_that_of_both_services_in_the_logs_order() -> None:
    service = HttpService()
    for event in (
        REQUESTED,
        STARTED,
        completed("link"),
        media_stored(0),
        storage_failed(0),
    ):
        await _say(service, "g-1", event)
    async with service.client() as client:
        answer = await client.get("/v1/generations/g-1/events")
    assert answer.status_code == 200
    events = answer.json()["events"]
    assert [(event["position"], event["type"]) for event in events] == [
        (1, "velro.generation.requested.v1"),
        (2, "velro.generation.submission_started.v1"),
        (3, "velro.generation.completed.v1"),
        (4, "velro.storage.media_stored.v1"),
        (5, "velro.generation.storage_failed.v1"),
    ]
    assert events[0]["data"] == json.loads(REQUESTED.model_dump_json())
    assert events[0]["id"] == "g-1:velro.generation.requested.v1"


async def test_an_event_of_a_newer_writer_is_in_the_history_as_it_is() -> None:
    log = MemoryLog()
    envelope = seal(STARTED, generation_id="g-1", at=now(), context=Context(source="test"))
    body = json.loads(envelope.model_dump_json(exclude_none=True))
    body |= {"type": "velro.generation.upscaled.v1", "data": {"factor": 4}}
    log.put("velro.generation.g-1", json.dumps(body).encode())
    async with HttpService(log=log).client() as client:
        answer = await client.get("/v1/generations/g-1/events")
    (event,) = answer.json()["events"]
    assert (event["type"], event["data"]) == ("velro.generation.upscaled.v1", {"factor": 4})


async def test_the_history_of_nothing_is_a_404() -> None:
    async with HttpService().client() as client:
        answer = await client.get("/v1/generations/nobodys/events")
    assert answer.status_code == 404
    assert answer.json()["type"] == "/problems/generation-not-found"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/generations",
        "/v1/generations/g-1",
        "/v1/generations/g-1/watch",
        "/v1/generations/g-1/outputs/0",
    ],
)
async def test_a_read_model_that_is_away_is_a_503_and_one_that_is_behind_a_504(path: str) -> None:
    async with HttpService().client() as client:
        away = await client.get(path)
        behind = await client.get(path, params={"at_least": 9, "wait_s": 0})
    assert (away.status_code, behind.status_code) == (503, 504)
    assert away.json()["type"] == "/problems/read-model-unavailable"
    assert behind.json()["type"] == "/problems/read-model-behind"
    assert "retry-after" in away.headers
    assert "retry-after" in behind.headers


@pytest.mark.parametrize(
    ("path", "where", "name"),
    [
        ("/v1/generations?limit=0", "query", "limit"),
        ("/v1/generations?limit=101", "query", "limit"),
        ("/v1/generations?limit=many", "query", "limit"),
        ("/v1/generations?status=done", "query", "status"),
        ("/v1/generations?storage_state=gone", "query", "storage_state"),
        ("/v1/generations?user_id=%00", "query", "user_id"),
        (f"/v1/generations?cursor={'c' * 201}", "query", "cursor"),
        ("/v1/generations/g-1?at_least=-1", "query", "at_least"),
        (f"/v1/generations/g-1?at_least={2**63}", "query", "at_least"),
        ("/v1/generations/g-1?wait_s=31", "query", "wait_s"),
        ("/v1/generations/g-1?wait_s=nan", "query", "wait_s"),
        ("/v1/generations/a.b", "path", "generation_id"),
        (f"/v1/generations/{'g' * 65}", "path", "generation_id"),
        ("/v1/generations/g-1/outputs/-1", "path", "index"),
        ("/v1/generations/g-1/outputs/1000", "path", "index"),
        ("/v1/generations/g-1/watch?until=forever", "query", "until"),
        ("/v1/generations/g-1/watch?timeout_s=0", "query", "timeout_s"),
        ("/v1/generations/g-1/watch?timeout_s=inf", "query", "timeout_s"),
        ("/v1/generations/g-1/watch?timeout_s=nan", "query", "timeout_s"),
    ],
)
async def test_a_bad_parameter_is_refused_by_name(path: str, where: str, name: str) -> None:
    async with HttpService().client() as client:
        answer = await client.get(path)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["in"], error["name"]) == (where, name)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/v2/generations", 404), ("DELETE", "/v1/generations/g-1", 405)],
)
async def test_what_the_framework_refuses_is_a_problem_too(
    method: str, path: str, status: int
) -> None:
    async with HttpService().client() as client:
        answer = await client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "about:blank"
    assert "x-correlation-id" in answer.headers


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/generations", "GET, POST"),
        ("/v1/generations/g-1", "GET"),
        ("/v1/generations/g-1/cancel", "POST"),
    ],
)
async def test_a_wrong_method_is_told_which_are_right(path: str, allowed: str) -> None:
    async with HttpService().client() as client:
        answer = await client.options(path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed


async def test_a_defect_is_a_500_that_says_nothing_of_what_is_inside() -> None:
    class Broken(NoReadModel):
        async def get(self, generation_id: str) -> NoReturn:
            raise ZeroDivisionError(f"a secret about {generation_id}")

    async with HttpService(queries=Broken()).client() as client:
        named = {"X-Correlation-ID": "looked-for"}
        answer = await client.get("/v1/generations/g-1", headers=named)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "/problems/internal-error"
    assert "secret" not in answer.text
    assert answer.headers["x-correlation-id"] == "looked-for"


async def test_every_kind_of_problem_explains_itself_under_its_type() -> None:
    async with HttpService().client() as client:
        for kind in PROBLEMS:
            answer = await client.get(f"/problems/{kind.name}")
            assert answer.status_code == 200
            assert answer.json()["status"] == kind.code
        unknown = await client.get("/problems/nothing-of-ours")
    assert unknown.status_code == 404
    assert len({kind.name for kind in PROBLEMS}) == len(PROBLEMS)


async def test_readiness_names_each_part_and_what_is_wrong_with_it() -> None:
    parts: dict[str, str | None] = {"nats": None, "projector": None}

    async def readiness() -> Mapping[str, str | None]:
        return parts

    async with HttpService(readiness=readiness).client() as client:
        ready = await client.get("/readyz")
        parts["projector"] = "waiting for Postgres"
        failing = await client.get("/readyz")
        alive = await client.get("/healthz")
    assert (ready.status_code, failing.status_code, alive.status_code) == (200, 503, 200)
    assert failing.json() == {
        "status": "failing",
        "parts": {
            "nats": {"ready": True, "problem": None},
            "projector": {"ready": False, "problem": "waiting for Postgres"},
        },
    }


async def test_readiness_that_does_not_answer_is_no_readiness(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def readiness() -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody resolves it")

    monkeypatch.setattr(health_routes, "_READINESS_TIMEOUT_S", 0.01)
    async with HttpService(readiness=readiness).client() as client:
        answer = await client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["parts"]["readiness"]["problem"]


async def test_the_document_names_every_problem_and_refers_to_nothing_that_is_not_there() -> None:
    async with HttpService().client() as client:
        document = (await client.get("/openapi.json")).json()
    schemas = document["components"]["schemas"]
    for reference in _references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            for status, answer in operation["responses"].items():
                assert answer["description"], (method, path, status)
                if int(status) >= 400 and path != "/readyz":
                    assert list(answer["content"]) == ["application/problem+json"], (path, status)
    # Shapes that the framework would document by itself and that nothing here answers.
    assert not {"HTTPValidationError", "ValidationError"} & schemas.keys()


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in cast("dict[str, Any]", node).items():
            if name == "$ref":
                yield value
            else:
                yield from _references(value)
    elif isinstance(node, list):
        for value in cast("list[Any]", node):
            yield from _references(value)


async def _say(service: HttpService, generation_id: str, event: AnyEvent) -> None:
    envelope = seal(event, generation_id=generation_id, at=now(), context=Context(source="test"))
    await service.log.append(event.family, generation_id, (envelope,), expected=None)
