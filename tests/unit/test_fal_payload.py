from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation_svc.adapters.providers.fal_payload import outputs_of, read_error, status_in

if TYPE_CHECKING:
    from generation_svc.adapters.providers.fal_http import Json

PNG = {
    "url": "https://v3.fal.media/files/a.png",
    "content_type": "image/png",
    "width": 1024,
    "height": 768,
    "file_size": 123,
}


@pytest.mark.parametrize(
    "payload",
    [
        {"images": [PNG], "seed": 1, "prompt": "a fox"},
        {"image": PNG},
        {"video": PNG},
        {"audio": PNG},
        {"audio_file": PNG},
        {"model_mesh": PNG},
        {"data": {"results": [{"deep": [{"er": PNG}]}]}},
        [PNG],
    ],
)
def test_a_file_is_found_wherever_a_model_puts_it(payload: Json) -> None:
    (output,) = outputs_of(payload)
    assert output.url == PNG["url"]
    assert (output.media_type, output.width, output.height) == ("image/png", 1024, 768)
    assert output.size_bytes == 123


def test_files_keep_the_order_of_the_answer_and_come_once() -> None:
    def file(name: str) -> dict[str, Json]:
        return {"url": f"https://v3.fal.media/{name}"}

    payload: Json = {
        "images": [file("b"), file("a")],
        "video": file("c"),
        "cover": file("b"),
    }
    assert [output.url[-1] for output in outputs_of(payload)] == ["b", "a", "c"]


def test_media_inside_the_answer_and_plain_strings_are_no_links() -> None:
    payload: Json = {
        "images": [{"url": "data:image/png;base64,AAAA"}],
        "prompt": "https://example.com/x.png",
        "error": {"url": 5},
    }
    assert outputs_of(payload) == ()


def test_what_a_file_claims_is_kept_only_where_it_can_be_true() -> None:
    payload: Json = {
        "url": "https://v3.fal.media/a",
        "width": -1,
        "height": True,
        "file_size": "big",
        "content_type": 7,
        "expires_at": "2026-01-01T00:00:00",
    }
    (output,) = outputs_of(payload)
    assert (output.width, output.height, output.size_bytes) == (None, None, None)
    assert (output.media_type, output.expires_at) == (None, None)


def test_a_file_may_say_when_its_link_dies() -> None:
    stamps: list[Json] = [1_700_000_000, "2023-11-14T22:13:20Z", "2023-11-14T23:13:20+01:00"]
    for stamp in stamps:
        (output,) = outputs_of({"url": "https://v3.fal.media/a", "expires_at": stamp})
        assert output.expires_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_a_very_deep_answer_is_read_without_recursion() -> None:
    payload: Json = {"url": "https://v3.fal.media/a"}
    for _ in range(50_000):
        payload = [payload]
    assert len(outputs_of(payload)) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("url"), inner),
    max_leaves=30,
)


@given(json_values)
def test_any_answer_at_all_can_be_read(payload: Json) -> None:
    for output in outputs_of(payload):
        assert output.url.startswith(("https://", "http://"))
    read_error(payload, status=500, headers={})


@given(st.lists(st.tuples(st.text(max_size=5), st.integers(0, 4)), max_size=12))
def test_every_file_planted_in_an_answer_is_found_in_its_order(
    plants: list[tuple[str, int]],
) -> None:
    planted: list[str] = []
    branches: list[Json] = []
    for number, (key, depth) in enumerate(plants):
        url = f"https://v3.fal.media/{number}"
        branch: Json = {"url": url, "content_type": "image/png"}
        for _ in range(depth):
            branch = {f"_{key}": branch, "seed": number}
        planted.append(url)
        branches.append(branch)
    payload = json.loads(json.dumps({"images": branches}))
    assert [output.url for output in outputs_of(payload)] == planted


def test_an_infrastructure_error_is_retryable_and_never_billed() -> None:
    body: Json = {"detail": "the runner left", "error_type": "runner_disconnected"}
    error = read_error(body, status=503, headers={})
    assert (error.code, error.detail) == ("runner_disconnected", "the runner left")
    assert (error.retryable, error.billed, error.typed) == (True, False, True)


def test_a_model_error_says_where_and_what_and_may_be_billed() -> None:
    body: Json = {
        "detail": [
            {"loc": ["body", "prompt"], "msg": "refused", "type": "content_policy_violation"},
            {"loc": ["body", "seed"], "msg": "too large", "type": "value_error"},
        ]
    }
    error = read_error(body, status=422, headers={"x-fal-retryable": "false"})
    assert error.code == "content_policy_violation"
    assert error.detail == "body.prompt: refused; body.seed: too large"
    assert (error.retryable, error.billed) == (False, None)


def test_the_header_decides_whether_a_retry_may_help() -> None:
    assert read_error({}, status=422, headers={"x-fal-retryable": "true"}).retryable
    assert not read_error({}, status=503, headers={"x-fal-retryable": "false"}).retryable


def test_an_error_without_a_shape_keeps_the_status_and_a_bounded_detail() -> None:
    error = read_error({"detail": "x" * 9000}, status=418, headers={})
    assert (error.code, len(error.detail), error.typed) == ("http_418", 2000, False)


def test_a_callback_names_the_status_in_its_sentence() -> None:
    assert status_in("Unexpected status code: 422") == 422
    assert status_in(None) == 500
