"""What a generation's command comes to in every state: one sentence a row of the table."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from generation_svc.domain.commands import (
    Cancel,
    Command,
    Complete,
    Fail,
    RecordSubmitted,
    Request,
    StartSubmission,
)
from generation_svc.domain.decide import AlreadyFinished, IdempotencyKeyReused, UnknownGeneration
from generation_svc.domain.state import Done, Requested, Running, Submitting
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    SubmissionStarted,
)
from tests.generation_events import (
    CANCELLED,
    FAILED,
    NOON,
    completed,
    media_stored,
    storage_failed,
)
from tests.generation_given import given, state_after

if TYPE_CHECKING:
    from shared.contracts.events import AnyEvent

REQUEST = Request(
    user_id="ann",
    provider="fal",
    model="painter",
    input={"prompt": "a lighthouse", "seed": 7},
    idempotency_key="order-17",
    metadata={"project": "coast"},
)
REQUESTED = GenerationRequested(
    user_id="ann",
    provider="fal",
    model="painter",
    input={"prompt": "a lighthouse", "seed": 7},
    idempotency_key="order-17",
    metadata={"project": "coast"},
)
STARTED = SubmissionStarted(attempt=1, claim="one")
STARTED_AGAIN = SubmissionStarted(attempt=2, claim="two", not_taken=1)


def submitted(request_id: str, attempt: int = 1) -> GenerationSubmitted:
    return GenerationSubmitted(
        attempt=attempt,
        request_id=request_id,
        status_url=f"https://queue/{request_id}/status",
        response_url=f"https://queue/{request_id}",
        cancel_url=f"https://queue/{request_id}/cancel",
    )


def record(request_id: str, attempt: int = 1) -> RecordSubmitted:
    event = submitted(request_id, attempt)
    return RecordSubmitted(
        attempt, request_id, event.status_url, event.response_url, event.cancel_url
    )


def fail(request_id: str | None) -> Fail:
    return Fail(request_id, "refused", "no", retryable=False, billed=True)


DONE = completed("link", "bucket", "link")
GIVEN_UP = GenerationFailed(code="late", detail="", retryable=True, given_up=True)
COMPLETE = Complete("r", DONE.outputs)

requested = (REQUESTED,)
submitting = (REQUESTED, STARTED)
running = (REQUESTED, STARTED, submitted("r"))
unfinished = pytest.mark.parametrize("past", [requested, submitting, running])
finished = pytest.mark.parametrize("end", [DONE, FAILED, CANCELLED])


def test_a_request_is_kept_word_for_word() -> None:
    given().when(REQUEST).then(REQUESTED)


@pytest.mark.parametrize("past", [requested, submitting, running, (*running, DONE)])
def test_the_same_request_again_changes_nothing(past: tuple[AnyEvent, ...]) -> None:
    given(*past).when(REQUEST).then_nothing_happens()


@pytest.mark.parametrize("past", [requested, submitting, running, (*running, CANCELLED)])
@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, user_id="bob"),
        replace(REQUEST, provider="sandbox"),
        replace(REQUEST, model="sculptor"),
        replace(REQUEST, input={"prompt": "a lighthouse", "seed": 8}),
        replace(REQUEST, metadata={}),
        replace(REQUEST, idempotency_key=None),
    ],
)
def test_another_request_under_the_same_id_is_refused(
    past: tuple[AnyEvent, ...], other: Request
) -> None:
    given(*past).when(other).then_refused(IdempotencyKeyReused)


def test_a_request_for_what_another_service_made_is_refused() -> None:
    given(DONE).when(REQUEST).then_refused(IdempotencyKeyReused)


@pytest.mark.parametrize(
    "command", [StartSubmission(1, "one"), record("r"), COMPLETE, fail("r"), fail(None), Cancel()]
)
def test_nothing_can_happen_to_what_nobody_asked_for(command: Command) -> None:
    given().when(command).then_refused(UnknownGeneration)


def test_the_first_paid_call_is_announced_with_its_claim() -> None:
    given(*requested).when(StartSubmission(1, "one")).then(STARTED)


def test_the_first_paid_call_is_not_the_second() -> None:
    given(*requested).when(StartSubmission(2, "two")).then_nothing_happens()


def test_the_next_paid_call_is_announced_after_the_one_before() -> None:
    given(*submitting).when(StartSubmission(2, "two", 1)).then(STARTED_AGAIN)


@pytest.mark.parametrize("attempt", [1, 3])
def test_no_paid_call_is_announced_twice_or_out_of_turn(attempt: int) -> None:
    given(*submitting).when(StartSubmission(attempt, "other")).then_nothing_happens()


@pytest.mark.parametrize("attempt", [1, 2])
def test_what_runs_is_not_submitted_again(attempt: int) -> None:
    given(*running).when(StartSubmission(attempt, "other")).then_nothing_happens()


@finished
def test_what_is_finished_is_not_submitted(end: AnyEvent) -> None:
    given(*submitting, end).when(StartSubmission(2, "two")).then_nothing_happens()


def test_the_providers_names_for_the_work_are_kept() -> None:
    given(*submitting).when(record("r")).then(submitted("r"))


def test_the_answer_to_the_latest_call_is_kept() -> None:
    past = (*submitting, STARTED_AGAIN)
    given(*past).when(record("r2", attempt=2)).then(submitted("r2", attempt=2))


def test_a_late_answer_to_an_earlier_call_is_not_the_one_that_counts() -> None:
    given(*submitting, STARTED_AGAIN).when(record("r")).then_nothing_happens()


@pytest.mark.parametrize("past", [requested, running])
def test_an_answer_to_a_call_that_is_not_open_changes_nothing(past: tuple[AnyEvent, ...]) -> None:
    given(*past).when(record("r")).then_nothing_happens()


def test_work_taken_after_its_cancellation_is_kept_so_that_it_can_be_stopped() -> None:
    given(*submitting, CANCELLED).when(record("r")).then(submitted("r"))


def test_work_taken_after_another_call_had_made_the_media_is_kept_to_be_stopped() -> None:
    past = (*submitting, STARTED_AGAIN, DONE)  # DONE came from request r
    given(*past).when(record("r2", attempt=2)).then(submitted("r2", attempt=2))


def test_an_answer_slower_than_its_own_webhook_changes_nothing() -> None:
    given(*submitting, DONE).when(record("r")).then_nothing_happens()
    given(*submitting, FAILED).when(record("r")).then_nothing_happens()


def test_work_whose_names_are_known_is_not_named_again_after_the_end() -> None:
    given(*running, CANCELLED).when(record("r")).then_nothing_happens()
    given(*running, CANCELLED).when(record("r2", attempt=2)).then_nothing_happens()


@unfinished
def test_media_completes_whatever_was_known_before(past: tuple[AnyEvent, ...]) -> None:
    given(*past).when(COMPLETE).then(DONE)


def test_an_earlier_call_that_made_the_media_after_all_completes_it() -> None:
    past = (*submitting, STARTED_AGAIN, submitted("r2", attempt=2))
    given(*past).when(COMPLETE).then(DONE)


@unfinished
def test_outputs_not_stored_complete_it_all_the_same_and_say_why(
    past: tuple[AnyEvent, ...],
) -> None:
    why = storage_failed(0, 2)
    given(*past).when(Complete("r", DONE.outputs, why.failures)).then(DONE, why)


@finished
def test_a_second_report_of_success_changes_nothing(end: AnyEvent) -> None:
    given(*running, end).when(COMPLETE).then_nothing_happens()
    given(*running, end).when(
        Complete("r", DONE.outputs, storage_failed(0).failures)
    ).then_nothing_happens()


def test_the_providers_failure_is_kept() -> None:
    given(*running).when(fail("r")).then(FAILED)


@pytest.mark.parametrize("request_id", [None, "r"])
@pytest.mark.parametrize("past", [requested, submitting])
def test_a_failure_before_any_answer_is_kept(
    past: tuple[AnyEvent, ...], request_id: str | None
) -> None:
    given(*past).when(fail(request_id)).then(FAILED)


def test_a_late_failure_of_an_earlier_call_does_not_end_the_one_that_runs() -> None:
    given(*running).when(fail("earlier")).then_nothing_happens()


def test_giving_up_on_submitting_does_not_end_what_runs() -> None:
    given(*running).when(fail(None)).then_nothing_happens()


@finished
def test_a_failure_after_the_end_changes_nothing(end: AnyEvent) -> None:
    given(*running, end).when(fail("r")).then_nothing_happens()


@pytest.mark.parametrize("past", [submitting, running])
def test_media_that_comes_after_giving_up_completes_it(past: tuple[AnyEvent, ...]) -> None:
    given(*past, GIVEN_UP).when(COMPLETE).then(DONE)
    given(*past, GIVEN_UP, DONE).when(COMPLETE).then_nothing_happens()
    assert isinstance(state_after(*past, GIVEN_UP, DONE), Done)
    assert state_after(*past, GIVEN_UP, DONE) == state_after(*past, DONE)


def test_what_was_given_up_on_can_neither_fail_again_nor_be_called_again_nor_cancelled() -> None:
    given(*running, GIVEN_UP).when(fail("r")).then_nothing_happens()
    given(*submitting, GIVEN_UP).when(StartSubmission(2, "two")).then_nothing_happens()
    given(*running, GIVEN_UP).when(Cancel()).then_refused(AlreadyFinished)


@unfinished
def test_what_is_not_finished_can_be_cancelled(past: tuple[AnyEvent, ...]) -> None:
    given(*past).when(Cancel("closed the tab")).then(GenerationCancelled(reason="closed the tab"))


def test_cancelling_again_changes_nothing() -> None:
    given(*running, CANCELLED).when(Cancel("again")).then_nothing_happens()


@pytest.mark.parametrize("end", [DONE, FAILED])
def test_what_is_completed_or_failed_cannot_be_cancelled(end: AnyEvent) -> None:
    given(*running, end).when(Cancel()).then_refused(AlreadyFinished)
    given(DONE).when(Cancel()).then_refused(AlreadyFinished)


def test_sentences_of_any_length_are_cut_to_what_the_contract_takes() -> None:
    long = "x" * 5000
    given(*running).when(Fail("r", "odd", long, retryable=True, billed=None)).then(
        GenerationFailed(code="odd", detail="x" * 2000, retryable=True, billed=None)
    )
    given(*running).when(Cancel(long)).then(GenerationCancelled(reason="x" * 2000))


def test_a_state_holds_what_its_decisions_read() -> None:
    second = timedelta(seconds=1)
    assert state_after(*requested) == Requested(REQUESTED)
    first_at = NOON + second
    assert state_after(*submitting) == Submitting(REQUESTED, 1, "one", first_at, first_at)
    assert state_after(*submitting, STARTED_AGAIN) == Submitting(
        REQUESTED, 2, "two", NOON + 2 * second, first_at, not_taken=1
    )
    assert state_after(*running) == Running(REQUESTED, submitted("r"), NOON + 2 * second)
    assert state_after(*running, DONE) == Done(REQUESTED, submitted("r"), DONE)
    assert state_after(DONE) == Done(None, None, DONE)


def test_the_end_is_for_good_whatever_the_log_says_after_it() -> None:
    end = state_after(*running, DONE)
    after = (FAILED, CANCELLED, REQUESTED, STARTED_AGAIN, submitted("r2", 2), completed("link"))
    assert state_after(*running, DONE, *after) == end


def test_a_name_for_the_work_that_comes_after_the_end_is_known_and_the_first_one_stays() -> None:
    end = state_after(*submitting, CANCELLED, submitted("r"))
    assert end == Done(REQUESTED, submitted("r"), CANCELLED)
    assert state_after(*submitting, CANCELLED, submitted("r"), submitted("r2", 2)) == end


def test_where_the_bytes_are_is_no_concern_of_a_decision() -> None:
    assert state_after(*running, storage_failed(0), media_stored(0)) == state_after(*running)
