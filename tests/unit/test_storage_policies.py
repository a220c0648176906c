"""When a failed copy is tried again, and when nothing can help."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.reasons import ReasonCode
from storage_svc.domain.policies import (
    BEYOND_DEATH,
    LONGEST_DELAY,
    SHORTEST_DELAY,
    FailedAttempt,
    GiveUp,
    Refetch,
    TryAgain,
    answer_to,
    retry_at,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
IN_A_WEEK = NOON + timedelta(days=7)
FAILED = FailedAttempt(
    reason=ReasonCode.SOURCE_UNAVAILABLE,
    attempt=1,
    previous_reason=None,
    failed_at=NOON,
    dies_at=NOON + timedelta(hours=1),
    retry_after_s=None,
    jitter=0.5,
)
DEAD = replace(FAILED, dies_at=NOON - timedelta(seconds=1))
REFUSED_CONTENT = [
    ReasonCode.TOO_LARGE,
    ReasonCode.MEDIA_TYPE_REFUSED,
]
OUR_BUCKET = [
    ReasonCode.BUCKET_UNAVAILABLE,
    ReasonCode.BUCKET_FULL,
    ReasonCode.CREDENTIALS_REFUSED,
]
OUR_COPY = [ReasonCode.INTERNAL, ReasonCode.CHECKSUM_MISMATCH]
OUR_SIDE = [*OUR_BUCKET, *OUR_COPY]


def test_delays_double_up_to_the_longest() -> None:
    delays = [
        (retry_at(NOON, attempt, IN_A_WEEK, 1.0) - NOON).total_seconds() for attempt in range(1, 12)
    ]
    assert delays == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


def test_jitter_halves_the_delay_at_most() -> None:
    assert retry_at(NOON, 3, IN_A_WEEK, 0.0) == NOON + timedelta(seconds=4)


def test_a_pause_that_was_asked_for_is_given() -> None:
    assert retry_at(NOON, 1, IN_A_WEEK, 0.0, retry_after_s=120) == NOON + timedelta(seconds=120)


def test_a_pause_beyond_the_death_leaves_half_of_the_time() -> None:
    dies_at = NOON + timedelta(seconds=60)
    assert retry_at(NOON, 1, dies_at, 0.0, retry_after_s=1e18) == NOON + timedelta(seconds=30)


@given(
    attempt=st.integers(1, 10_000),
    lifetime=st.timedeltas(timedelta(microseconds=1), timedelta(days=30)),
    jitter=st.floats(0, 1),
    retry_after_s=st.none() | st.floats(0, 1e12),
)
def test_a_retry_is_never_past_the_death_of_the_link(
    attempt: int, lifetime: timedelta, jitter: float, retry_after_s: float | None
) -> None:
    at = retry_at(NOON, attempt, NOON + lifetime, jitter, retry_after_s=retry_after_s)
    assert NOON < at <= NOON + lifetime


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1), age=st.timedeltas(timedelta(0)))
def test_no_item_is_retried_for_ever_at_full_speed(
    attempt: int, jitter: float, age: timedelta
) -> None:
    dies_at = NOON - min(age, timedelta(days=365))
    delay = retry_at(NOON, attempt, dies_at, jitter) - NOON
    assert SHORTEST_DELAY <= delay <= LONGEST_DELAY


@given(outage=st.floats(0.05, 0.9), jitter=st.floats(0, 1))
def test_an_outage_that_ends_before_the_death_leaves_time_to_try(
    outage: float, jitter: float
) -> None:
    dies_at = NOON + timedelta(hours=1)
    back_at = NOON + timedelta(hours=1) * outage
    now, attempt = NOON, 1
    while now < back_at:
        now = retry_at(now, attempt, dies_at, jitter)
        attempt += 1
    assert dies_at - now >= (dies_at - back_at) * 0.49


@pytest.mark.parametrize("reason", REFUSED_CONTENT)
def test_what_will_never_be_kept_is_given_up_at_once(reason: ReasonCode) -> None:
    assert answer_to(replace(FAILED, reason=reason)) == GiveUp()


@pytest.mark.parametrize("reason", sorted(set(ReasonCode) - set(REFUSED_CONTENT)))
def test_everything_else_is_tried_again_while_the_link_lives(reason: ReasonCode) -> None:
    assert isinstance(answer_to(replace(FAILED, reason=reason)), TryAgain)


@pytest.mark.parametrize("reason", sorted(set(ReasonCode) - set(OUR_SIDE)))
def test_a_dead_link_that_does_not_deliver_is_given_up(reason: ReasonCode) -> None:
    assert answer_to(replace(DEAD, reason=reason)) == GiveUp()


@pytest.mark.parametrize("reason", sorted(set(ReasonCode) - set(OUR_SIDE) - set(REFUSED_CONTENT)))
def test_a_dead_link_is_asked_for_again_where_somebody_can_be_asked(reason: ReasonCode) -> None:
    assert answer_to(replace(DEAD, reason=reason, may_ask=True)) == Refetch()


@pytest.mark.parametrize("reason", REFUSED_CONTENT)
def test_a_new_link_would_lead_to_the_same_content(reason: ReasonCode) -> None:
    assert answer_to(replace(DEAD, reason=reason, may_ask=True)) == GiveUp()


@pytest.mark.parametrize("reason", OUR_SIDE)
def test_no_new_link_is_asked_for_because_of_our_own_side(reason: ReasonCode) -> None:
    assert isinstance(answer_to(replace(DEAD, reason=reason, may_ask=True)), TryAgain)


@pytest.mark.parametrize("reason", [ReasonCode.SOURCE_EXPIRED, ReasonCode.SOURCE_FORBIDDEN])
def test_a_living_link_that_refuses_twice_is_asked_for_again(reason: ReasonCode) -> None:
    refused = replace(FAILED, reason=reason, may_ask=True)
    assert isinstance(answer_to(refused), TryAgain)
    assert answer_to(replace(refused, previous_reason=reason)) == Refetch()


def test_a_living_link_that_forbids_is_tried_on_where_nobody_can_be_asked() -> None:
    forbidden = ReasonCode.SOURCE_FORBIDDEN
    again = replace(FAILED, reason=forbidden, previous_reason=forbidden)
    assert isinstance(answer_to(again), TryAgain)


def test_a_source_that_is_down_is_tried_on_while_its_link_lives() -> None:
    down = ReasonCode.SOURCE_UNAVAILABLE
    again = replace(FAILED, reason=down, previous_reason=down, may_ask=True)
    assert isinstance(answer_to(again), TryAgain)


@pytest.mark.parametrize("reason", OUR_SIDE)
def test_a_dead_link_is_not_given_up_because_of_our_own_side(reason: ReasonCode) -> None:
    answer = answer_to(replace(DEAD, reason=reason, attempt=5))
    assert isinstance(answer, TryAgain)
    assert answer.at > NOON


@pytest.mark.parametrize("reason", OUR_COPY)
def test_a_copy_that_fails_by_itself_is_given_up_long_after_the_death(reason: ReasonCode) -> None:
    outlived = replace(FAILED, reason=reason, dies_at=NOON - BEYOND_DEATH)
    assert answer_to(outlived) == GiveUp()
    assert answer_to(replace(outlived, may_ask=True)) == Refetch()


@pytest.mark.parametrize("reason", OUR_BUCKET)
def test_nothing_is_ever_given_up_because_of_our_own_bucket(reason: ReasonCode) -> None:
    ages = replace(FAILED, reason=reason, dies_at=NOON - timedelta(days=365))
    assert isinstance(answer_to(ages), TryAgain)


def test_a_living_link_that_says_gone_is_asked_once_more() -> None:
    gone = replace(FAILED, reason=ReasonCode.SOURCE_EXPIRED)
    assert isinstance(answer_to(gone), TryAgain)
    assert answer_to(replace(gone, previous_reason=ReasonCode.SOURCE_EXPIRED)) == GiveUp()
