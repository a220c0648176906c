"""Events are closed when they are written and open when they are read."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError

from shared.contracts.codec import Codec, Undecodable, Upcast, encode
from shared.contracts.envelope import Context, UnknownEvent, seal
from shared.contracts.facts import Output, StoredObject
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationRequested,
    SubmissionStarted,
)
from shared.contracts.storage_events import MediaStored

AT = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
CONTEXT = Context(source="velro/generation")
BODY: dict[str, Any] = json.loads(
    encode(seal(SubmissionStarted(attempt=1), generation_id="g-1", at=AT, context=CONTEXT))
)


def changed(**fields: object) -> bytes:
    return json.dumps(BODY | fields).encode()


def requested(**fields: object) -> GenerationRequested:
    return GenerationRequested.model_validate(
        {"user_id": "u", "provider": "fal", "model": "m", "input": {}} | fields
    )


def read_back(event: GenerationRequested) -> GenerationRequested:
    data = Codec().decode(encode(seal(event, generation_id="g-1", at=AT, context=CONTEXT))).data
    assert isinstance(data, GenerationRequested)
    return data


class TestWriting:
    def test_the_same_fact_has_the_same_id_whoever_writes_it_and_when(self) -> None:
        first = seal(SubmissionStarted(attempt=2), generation_id="g-1", at=AT, context=CONTEXT)
        later = seal(
            SubmissionStarted(attempt=2),
            generation_id="g-1",
            at=AT + timedelta(hours=1),
            context=Context(source="other", correlation_id="c"),
        )
        assert first.id == later.id == "g-1:velro.generation.submission_started.v1:2"

    def test_another_attempt_is_another_fact(self) -> None:
        ids = {
            seal(SubmissionStarted(attempt=n), generation_id="g", at=AT, context=CONTEXT).id
            for n in (1, 2)
        }
        assert len(ids) == 2

    def test_absent_attributes_are_left_out_as_cloudevents_wants(self) -> None:
        assert not {"correlationid", "causationid", "traceparent"} & BODY.keys()

    @pytest.mark.parametrize(
        "fields",
        [
            {"surprise": 1},
            {"user_id": 7},
            {"user_id": "../other"},
            {"user_id": ""},
            {"input": "a string"},
            {"model": None},
        ],
    )
    def test_an_unknown_field_or_a_value_of_another_type_is_refused(
        self, fields: dict[str, Any]
    ) -> None:
        with pytest.raises(ValidationError):
            requested(**fields)

    def test_outputs_with_a_gap_are_refused(self) -> None:
        output = Output(index=1, source_url="https://a/b", expires_at=AT)
        with pytest.raises(ValidationError, match="from 0, without gaps"):
            GenerationCompleted(user_id="u", provider="p", model="m", outputs=(output,))

    def test_a_time_without_a_zone_is_refused(self) -> None:
        with pytest.raises(ValidationError):
            Output(index=0, source_url="https://a/b", expires_at=AT.replace(tzinfo=None))

    @pytest.mark.parametrize("generation_id", ["", "a.b", "*", ">", "a b", "a/b", "x" * 65, "ä"])
    def test_an_id_that_is_no_token_of_a_subject_is_refused(self, generation_id: str) -> None:
        with pytest.raises(ValidationError):
            seal(SubmissionStarted(attempt=1), generation_id=generation_id, at=AT, context=CONTEXT)

    @pytest.mark.parametrize("source", ["", "two words", "line\r\nend", "x" * 513])
    def test_a_source_that_is_no_uri_reference_is_refused(self, source: str) -> None:
        with pytest.raises(ValidationError):
            seal(
                SubmissionStarted(attempt=1),
                generation_id="g",
                at=AT,
                context=Context(source=source),
            )

    def test_an_event_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            requested().user_id = "other"  # pyright: ignore[reportAttributeAccessIssue] - the point


class TestWhatOthersChoseTheShapeOf:
    """`input` and `metadata` come back exactly as they were given, or are refused at the door."""

    @pytest.mark.parametrize(
        "value",
        [
            {"mask": None, "loras": [None, {"path": None}]},
            {"big": 10**40, "small": 5e-324, "minus_zero": -0.0, "whole": 1.0},
            {"prompt": "\x00 \u2028 🗼 \\u0000", "": ""},
            {"true": True, "one": 1},
        ],
    )
    def test_json_survives(self, value: dict[str, Any]) -> None:
        back = read_back(requested(input=value, metadata=value))
        assert json.dumps(back.input) == json.dumps(value)
        assert json.dumps(back.metadata) == json.dumps(value)

    def test_sixty_levels_survive(self) -> None:
        value = nested(60)
        assert read_back(requested(input=value)).input == value

    @pytest.mark.parametrize(
        "value",
        [
            {"strength": float("nan")},
            {"deep": [{"strength": float("-inf")}]},
            {"half": "\ud800"},
            {"\ud800": "half"},
        ],
    )
    def test_what_is_not_json_is_refused(self, value: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            requested(input=value)

    def test_what_the_reader_would_give_up_on_is_refused(self) -> None:
        with pytest.raises(ValidationError, match="nested"):
            requested(input=nested(100))

    def test_a_duration_is_a_number(self) -> None:
        stored = StoredObject(
            bucket="b", key="k", size_bytes=1, sha256="0" * 64, media_type="image/png"
        )
        with pytest.raises(ValidationError):
            MediaStored(index=0, attempt=1, object=stored, took_s=float("inf"))


class TestReading:
    def test_fields_that_a_newer_writer_added_are_passed_by_at_every_level(self) -> None:
        output = {
            "index": 0,
            "source_url": "https://a/b",
            "expires_at": "2026-05-04T04:00:00Z",
            "new": {"deep": 1},
        }
        data = changed(
            type=GenerationCompleted.type,
            tenant="t",
            data={"user_id": "u", "provider": "p", "model": "m", "outputs": [output], "new": 1},
        )
        decoded = Codec().decode(data).data
        assert isinstance(decoded, GenerationCompleted)
        assert decoded.outputs[0].source_url == "https://a/b"

    def test_a_type_that_is_not_known_yet_is_no_error(self) -> None:
        decoded = Codec().decode(changed(type="velro.generation.upscaled.v1", data={"factor": 2}))
        assert decoded.type == "velro.generation.upscaled.v1"
        assert decoded.data == UnknownEvent(body={"factor": 2})

    def test_a_time_in_another_zone_is_the_same_moment(self) -> None:
        decoded = Codec().decode(changed(time="2026-05-04T05:02:01+02:00"))
        assert decoded.time == AT.astimezone(timezone(timedelta(hours=2)))

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\xff\xfe",
            b"null",
            b"[]",
            b"{}",
            b"[" * 100_000,
            changed(type=None),
            changed(type=7),
            changed(type=["velro"]),
            changed(data=None),
            changed(data={"attempt": 0}),
            changed(data={"attempt": "1"}),
            changed(data={}),
            changed(id=""),
            changed(time="yesterday"),
            changed(time="2026-05-04T03:02:01"),
            changed(specversion="0.3"),
            changed(subject="a.b"),
            changed(type="velro.unknown.v1", data=[1]),
            changed(type="velro.unknown.v1", subject="a.b"),
            json.dumps({"type": "velro.unknown.v1"}).encode(),
        ],
        ids=range(21),
    )
    def test_bytes_that_are_no_event_are_told_apart(self, data: bytes) -> None:
        with pytest.raises(Undecodable):
            Codec().decode(data)

    def test_the_error_says_which_field_is_wrong(self) -> None:
        with pytest.raises(Undecodable, match=r"data\.attempt: Input should be greater"):
            Codec().decode(changed(data={"attempt": 0}))


def first_to_second(data: dict[str, Any]) -> dict[str, Any]:
    return {"why": data["text"]}


def second_to_current(data: dict[str, Any]) -> dict[str, Any]:
    return {"reason": data["why"].strip()}


class TestOldVersions:
    codec = Codec(
        {
            "velro.test.cancelled.v1": Upcast("velro.test.cancelled.v2", first_to_second),
            "velro.test.cancelled.v2": Upcast(GenerationCancelled.type, second_to_current),
        }
    )

    @pytest.mark.parametrize(
        ("old_type", "data"),
        [
            ("velro.test.cancelled.v1", {"text": " too slow "}),
            ("velro.test.cancelled.v2", {"why": " too slow "}),
        ],
    )
    def test_an_old_version_is_lifted_step_by_step(
        self, old_type: str, data: dict[str, str]
    ) -> None:
        decoded = self.codec.decode(changed(type=old_type, data=data))
        assert decoded.data == GenerationCancelled(reason="too slow")
        assert decoded.type == GenerationCancelled.type
        assert decoded.id == BODY["id"]

    @pytest.mark.parametrize("data", [{}, None, [], {"text": None}, {"text": 7}])
    def test_old_data_that_never_had_its_shape_is_undecodable(self, data: object) -> None:
        with pytest.raises(Undecodable):
            self.codec.decode(changed(type="velro.test.cancelled.v1", data=data))

    def test_upcasters_that_lead_nowhere_are_refused_at_start(self) -> None:
        with pytest.raises(ValueError, match="no current type"):
            Codec({"velro.test.v1": Upcast("velro.test.v2", dict)})

    def test_upcasters_that_lead_in_a_circle_are_refused_at_start(self) -> None:
        with pytest.raises(ValueError, match="a to b to a"):
            Codec({"a": Upcast("b", dict), "b": Upcast("a", dict)})


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value
