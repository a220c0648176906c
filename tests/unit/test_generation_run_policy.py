"""How patient a run is, in numbers."""

from __future__ import annotations

import itertools
import math

from hypothesis import given
from hypothesis import strategies as st

from generation_svc.application.run_policy import NotTaken, RunPolicy

POLICY = RunPolicy()


def not_taken(attempt: int, retry_after_s: float | None = None) -> NotTaken:
    return NotTaken(attempt, retry_after_s, "busy")


def test_polling_begins_after_a_second_and_backs_off_to_fifteen() -> None:
    waits = [POLICY.poll_wait_s(polls) for polls in range(9)]
    assert waits[:3] == [1.0, 1.5, 2.25]
    assert waits == sorted(waits)
    assert waits[-2:] == [15.0, 15.0]


@given(st.integers(0, 10**9), st.floats(0.001, 1e6), st.floats(0.001, 1e6))
def test_polling_never_waits_longer_than_it_may_however_often(
    polls: int, first_s: float, longest_s: float
) -> None:
    wait_s = RunPolicy(first_poll_s=first_s, longest_poll_s=longest_s).poll_wait_s(polls)
    assert 0 < wait_s <= longest_s
    assert wait_s >= min(first_s, longest_s)


def test_a_run_polls_a_few_hundred_times_at_the_most() -> None:
    passed = itertools.accumulate(POLICY.poll_wait_s(polls) for polls in itertools.count())
    assert sum(1 for _ in itertools.takewhile(lambda s: s < POLICY.max_run_s, passed)) < 300


def test_calling_again_waits_twice_as_long_each_time_up_to_a_minute() -> None:
    waits = [POLICY.resubmit_wait_s(not_taken(attempt)) for attempt in range(1, 9)]
    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_a_provider_that_asks_for_more_is_left_alone_for_as_long() -> None:
    assert POLICY.resubmit_wait_s(not_taken(1, 90.0)) == 90.0
    assert POLICY.resubmit_wait_s(not_taken(1, 0.5)) == 2.0
    assert POLICY.resubmit_wait_s(not_taken(1, 0.0)) == 2.0


@given(st.integers(1, 10**9), st.none() | st.floats(0, math.inf))
def test_no_provider_can_ask_for_more_than_a_run_may_take(
    attempt: int, retry_after_s: float | None
) -> None:
    wait_s = POLICY.resubmit_wait_s(not_taken(attempt, retry_after_s))
    assert 0 < wait_s <= POLICY.max_run_s


def test_an_answer_is_lost_when_no_call_takes_so_long() -> None:
    assert not POLICY.answer_is_lost(59.9)
    assert POLICY.answer_is_lost(60.0)
    assert RunPolicy(unknown_wait_s=10.0).answer_is_lost(10.0)


@given(st.floats(0.1, 1e5))
def test_a_claim_ends_well_before_another_run_may_call(unknown_wait_s: float) -> None:
    policy = RunPolicy(unknown_wait_s=unknown_wait_s)
    assert policy.claim_holds_s <= unknown_wait_s / 2
