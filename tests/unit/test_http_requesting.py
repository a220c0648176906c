from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from generation_svc.adapters.http.limits import MAX_BODY_BYTES, MAX_INPUT_BYTES
from shared.contracts.generation_events import GenerationCancelled, GenerationRequested
from shared.event_log.memory import MemoryLog
from tests.http_service import BODY, HttpService

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import httpx

JSON = {"content-type": "application/json"}


async def test_an_accepted_request_is_in_the_log_and_answers_where() -> None:
    service = HttpService()
    async with service.client() as client:
        answer = await client.post("/v1/generations", json=BODY)
    accepted = answer.json()
    path = f"/v1/generations/{accepted['id']}"
    assert answer.status_code == 202
    assert answer.headers["location"] == path
    assert accepted["position"] == 1
    assert accepted["links"] == {
        "self": f"{path}?at_least=1",
        "watch": f"{path}/watch?at_least=1",
        "events": f"{path}/events",
        "cancel": f"{path}/cancel",
    }
    (recorded,) = (await service.log.load("generation", accepted["id"])).events
    assert recorded.envelope.data == GenerationRequested(**BODY)


async def test_the_same_key_and_body_is_the_same_generation() -> None:
    service = HttpService()
    async with service.client() as client:
        first = await _keyed(client, BODY)
        second = await _keyed(client, BODY)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json() == second.json()
    assert first.headers["location"] == second.headers["location"]
    assert await service.log.last_position() == 1


@pytest.mark.parametrize(
    "change",
    [
        {"input": {"prompt": "another"}},
        {"model": "sandbox/other"},
        {"provider": "fal"},
        {"metadata": {}},
    ],
)
async def test_the_same_key_with_another_body_is_refused(change: dict[str, Any]) -> None:
    service = HttpService()
    async with service.client() as client:
        await _keyed(client, BODY)
        answer = await _keyed(client, BODY | change)
    assert _problem(answer, 422)["type"] == "/problems/idempotency-key-reused"
    assert await service.log.last_position() == 1


async def test_a_key_names_requests_of_one_user_only() -> None:
    service = HttpService()
    async with service.client() as client:
        adas = await _keyed(client, BODY)
        bobs = await _keyed(client, BODY | {"user_id": "bob"})
    assert bobs.status_code == 202
    assert adas.json()["id"] != bobs.json()["id"]


async def test_without_a_key_the_same_body_twice_is_two_generations() -> None:
    service = HttpService()
    async with service.client() as client:
        first = await client.post("/v1/generations", json=BODY)
        second = await client.post("/v1/generations", json=BODY)
    assert first.json()["id"] != second.json()["id"]


async def test_twenty_identical_requests_at_once_are_one_generation() -> None:
    service = HttpService()
    async with service.client() as client:
        answers = await asyncio.gather(*(_keyed(client, BODY) for _ in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [202]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await service.log.last_position() == 1


async def test_an_unknown_provider_is_told_which_there_are() -> None:
    service = HttpService()
    async with service.client() as client:
        answer = await client.post("/v1/generations", json=BODY | {"provider": "dalle"})
    problem = _problem(answer, 422)
    assert problem["type"] == "/problems/unknown-provider"
    assert problem["providers"] == ["fal", "sandbox"]
    assert await service.log.last_position() == 0


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "#"),
    "not an object": (b"[]", "#"),
    "not JSON": (b"{", "#"),
    "an unknown member": (json.dumps(BODY | {"a/b~c": 1}).encode(), "#/a~1b~0c"),
    "an unknown member that is no text": (
        json.dumps(BODY).encode()[:-1] + rb', "\ud800": 1}',
        "#",
    ),
    "no user": (json.dumps({**BODY, "user_id": ""}).encode(), "#/user_id"),
    "a user that is a path": (json.dumps({**BODY, "user_id": "a/../b"}).encode(), "#/user_id"),
    "a user that is the folder above": (
        json.dumps({**BODY, "user_id": ".."}).encode(),
        "#/user_id",
    ),
    "a user that is a number": (json.dumps({**BODY, "user_id": 7}).encode(), "#/user_id"),
    "a model that leaves its folder": (json.dumps({**BODY, "model": "a/../b"}).encode(), "#/model"),
    "a model with a query": (json.dumps({**BODY, "model": "a?b=c"}).encode(), "#/model"),
    "a model with a line end": (json.dumps({**BODY, "model": "a\n"}).encode(), "#/model"),
    "a model that is half a character": (
        json.dumps({**BODY, "model": "\ud800"}).encode(),
        "#/model",
    ),
    "an input that is a text": (json.dumps({**BODY, "input": "a cat"}).encode(), "#/input"),
    "NaN in the input": (json.dumps({**BODY, "input": {"x": float("nan")}}).encode(), "#/input"),
    "a number without end": (
        json.dumps(BODY).encode().replace(b'"num_images": 2', b'"x": 1e999'),
        "#/input",
    ),
    "half a character in the input": (
        json.dumps({**BODY, "input": {"prompt": "\ud800"}}).encode(),
        "#/input",
    ),
    "half a character as a name": (
        json.dumps({**BODY, "input": {"\ud800": 1}}).encode(),
        "#/input",
    ),
    "an input nested too deep": (
        json.dumps(BODY)
        .encode()
        .replace(b'{"prompt"', b'{"deep": ' + b"[" * 80 + b"]" * 80 + b', "prompt"'),
        "#/input",
    ),
    "metadata under the service's names": (
        json.dumps({**BODY, "metadata": {"storage_successful": True}}).encode(),
        "#/metadata",
    ),
}


async def test_what_is_no_json_is_told_with_where_the_reader_stopped() -> None:
    async with HttpService().client() as client:
        answer = await client.post("/v1/generations", content=b'{"a": 1,}', headers=JSON)
    (error,) = _problem(answer, 422)["errors"]
    assert error["pointer"] == "#"
    assert error["detail"].startswith("JSON decode error: ")
    assert error["detail"].endswith(", at character 8")


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "application/x-www-form-urlencoded"}, {"Content-Type": "text/json"}],
)
async def test_json_that_is_not_said_to_be_json_is_told_how_to_say_it(
    headers: dict[str, str],
) -> None:
    service = HttpService()
    async with service.client() as client:
        answer = await client.post(
            "/v1/generations", content=json.dumps(BODY).encode(), headers=headers
        )
        other = await client.post(
            "/v1/generations",
            content=json.dumps(BODY).encode(),
            headers={"Content-Type": "application/vnd.ours+json; charset=utf-8"},
        )
    problem = _problem(answer, 415)
    assert problem["type"] == "/problems/unsupported-media-type"
    assert headers["Content-Type"] in problem["detail"]
    assert "Content-Type: application/json" in problem["detail"]
    assert other.status_code == 202
    assert await service.log.last_position() == 1


@pytest.mark.parametrize("case", BAD_BODIES)
async def test_a_bad_body_is_refused_with_where_it_is_bad(case: str) -> None:
    body, pointer = BAD_BODIES[case]
    service = HttpService()
    async with service.client() as client:
        answer = await client.post("/v1/generations", content=body, headers=JSON)
    problem = _problem(answer, 422)
    assert problem["type"] == "/problems/invalid-request"
    # A pointer may go on into the value where the reader knew more.
    pointers = [error["pointer"] for error in problem["errors"]]
    assert any(each == pointer or each.startswith(f"{pointer}/") for each in pointers), pointers
    assert await service.log.last_position() == 0


@pytest.mark.parametrize(
    "body",
    [b"[" * 200_000, b"\xff\xfe{", b'{"user_id": ' + b"9" * 5000 + b"}"],
    ids=["nested without end", "no text", "a number of 5000 digits"],
)
async def test_a_body_that_cannot_be_read_is_refused(body: bytes) -> None:
    service = HttpService()
    async with service.client() as client:
        answer = await client.post("/v1/generations", content=body, headers=JSON)
    assert answer.status_code in {400, 422}
    _problem(answer, answer.status_code)
    assert await service.log.last_position() == 0


@pytest.mark.parametrize("key", ["", "with space", "k" * 256])
async def test_a_key_that_is_no_short_word_is_refused(key: str) -> None:
    service = HttpService()
    async with service.client() as client:
        answer = await client.post("/v1/generations", json=BODY, headers={"Idempotency-Key": key})
    (error,) = _problem(answer, 422)["errors"]
    assert (error["in"], error["name"]) == ("header", "idempotency-key")


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(*, announced: bool) -> None:
    service = HttpService()
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 1
            yield b" " * (MAX_BODY_BYTES // 8)

    headers = JSON | ({"content-length": str(8 * MAX_BODY_BYTES)} if announced else {})
    async with service.client() as client:
        answer = await client.post("/v1/generations", content=chunks(), headers=headers)
    assert _problem(answer, 413)["type"] == "/problems/too-large"
    assert sent <= 10


async def test_the_largest_input_fits_into_an_event_and_one_byte_more_does_not() -> None:
    service = HttpService(log=MemoryLog(max_event_bytes=1024 * 1024))
    # Control characters are six bytes each in an event and count as such.
    room = MAX_INPUT_BYTES - len('{"prompt":""}')
    fits = "\x01" * (room // 6) + "x" * (room % 6)
    async with service.client() as client:
        taken = await client.post(
            "/v1/generations",
            json=BODY
            | {"input": {"prompt": fits}, "metadata": {"m": "x" * (64 * 1024 - len('{"m":""}'))}},
        )
        refused = await client.post(
            "/v1/generations", json=BODY | {"input": {"prompt": fits + "x"}}
        )
    assert taken.status_code == 202
    assert _problem(refused, 413)["type"] == "/problems/too-large"
    assert await service.log.last_position() == 1


async def test_a_callers_correlation_id_is_in_the_event_and_in_the_answer() -> None:
    service = HttpService()
    async with service.client() as client:
        named = await client.post(
            "/v1/generations", json=BODY, headers={"X-Correlation-ID": "order-7"}
        )
        unnamed = await client.post("/v1/generations", json=BODY)
        unusable = await client.get("/healthz", headers={"X-Correlation-ID": "two words"})
    (recorded,) = (await service.log.load("generation", named.json()["id"])).events
    assert recorded.envelope.correlationid == named.headers["x-correlation-id"] == "order-7"
    assert unnamed.headers["x-correlation-id"] == unnamed.json()["id"]
    assert unusable.headers["x-correlation-id"] not in {"", "two words"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (f"00-{'4b' * 16}-{'f0' * 8}-01", True),
        (f"00-{'0' * 32}-{'f0' * 8}-01", False),
        (f"00-{'4b' * 16}-{'0' * 16}-01", False),
        (f"01-{'4b' * 16}-{'f0' * 8}-01-more", False),
        (f"00-{'4B' * 16}-{'f0' * 8}-01", False),
        ("trace me", False),
    ],
)
async def test_a_callers_trace_is_in_the_event_where_it_is_one(given: str, *, kept: bool) -> None:
    service = HttpService()
    async with service.client() as client:
        made = await client.post("/v1/generations", json=BODY, headers={"traceparent": given})
        path = f"/v1/generations/{made.json()['id']}/events"
        (told,) = (await client.get(path)).json()["events"]
    assert made.status_code == 202
    assert told["traceparent"] == (given if kept else None)


async def test_cancelling_twice_is_cancelling_once() -> None:
    service = HttpService()
    async with service.client() as client:
        generation_id = (await client.post("/v1/generations", json=BODY)).json()["id"]
        path = f"/v1/generations/{generation_id}/cancel"
        named = {"X-Correlation-ID": "order-7"}
        first = await client.post(path, json={"reason": "changed my mind"}, headers=named)
        second = await client.post(path)
    assert (first.status_code, second.status_code) == (200, 200)
    assert first.json() == second.json()
    _, cancelled = (await service.log.load("generation", generation_id)).events
    assert cancelled.envelope.data == GenerationCancelled(reason="changed my mind")
    assert cancelled.envelope.correlationid == "order-7"
    assert first.json()["position"] == cancelled.position


async def test_cancelling_what_nobody_asked_for_is_a_404() -> None:
    async with HttpService().client() as client:
        answer = await client.post("/v1/generations/nobodys/cancel")
    assert _problem(answer, 404)["type"] == "/problems/generation-not-found"


async def _keyed(client: httpx.AsyncClient, body: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/generations", json=body, headers={"Idempotency-Key": "k-1"})


def _problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    return problem
