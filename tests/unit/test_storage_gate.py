"""When copies wait because every copy would fail, and how they come back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from shared.contracts.reasons import ReasonCode
from storage_svc.application.backlog import Lease
from storage_svc.application.gate import Gate
from storage_svc.application.store_output import (
    AlreadySettled,
    FailedNow,
    LostNow,
    Outcome,
    StoredNow,
)
from storage_svc.domain.circuit import FIRST_PAUSE, LONGEST_PAUSE, TRIPS_AFTER, Circuit

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = Lease("g", 0, "ann", "sandbox", "https://a.example/0", "a.example", NOON, 0)
OTHER_HOST = replace(LEASE, source_host="b.example")
STORED = StoredNow(size_bytes=1, took_s=0.1)


def failed(reason: ReasonCode) -> FailedNow:
    return FailedNow(reason, "no", NOON)


def gate_after(*outcomes: Outcome, lease: Lease = LEASE) -> Gate:
    gate = Gate()
    for outcome in outcomes:
        assert gate.starts(lease, NOON)
        gate.ended(lease, outcome, NOON)
    return gate


def test_a_fresh_gate_admits_what_is_free() -> None:
    admission = Gate().admits(NOON, free=8, running=0)
    assert (admission.max_rows, admission.closed_hosts, admission.changes_at) == (
        8,
        frozenset[str](),
        None,
    )


@pytest.mark.parametrize(
    "reason",
    [ReasonCode.BUCKET_UNAVAILABLE, ReasonCode.CREDENTIALS_REFUSED, ReasonCode.BUCKET_FULL],
)
def test_a_bucket_that_keeps_failing_is_left_alone(reason: ReasonCode) -> None:
    gate = gate_after(*[failed(reason)] * TRIPS_AFTER)
    assert gate.bucket_is_away
    assert gate.admits(NOON, free=8, running=0).max_rows == 0
    assert not gate.starts(OTHER_HOST, NOON)


def test_one_probe_at_a_time_tests_the_bucket() -> None:
    gate = gate_after(*[failed(ReasonCode.BUCKET_UNAVAILABLE)] * TRIPS_AFTER)
    later = NOON + FIRST_PAUSE
    assert gate.admits(NOON, free=8, running=0).changes_at == later
    assert gate.admits(later, free=8, running=0).max_rows == 1
    assert gate.starts(LEASE, later)
    assert gate.admits(later, free=8, running=1).max_rows == 0
    gate.ended(LEASE, failed(ReasonCode.BUCKET_UNAVAILABLE), later)
    assert gate.admits(later + FIRST_PAUSE, free=8, running=0).max_rows == 0, "a longer pause"
    assert gate.admits(later + 2 * FIRST_PAUSE, free=8, running=0).max_rows == 1


def test_when_the_bucket_is_back_copies_come_back_as_a_slope() -> None:
    gate = gate_after(*[failed(ReasonCode.BUCKET_UNAVAILABLE)] * TRIPS_AFTER)
    later = NOON + FIRST_PAUSE
    assert gate.starts(LEASE, later)
    gate.ended(LEASE, STORED, later)
    assert not gate.bucket_is_away
    assert gate.bucket_back_at == later
    assert gate.admits(later, free=64, running=0).max_rows == 2
    gate.ended(LEASE, STORED, later)
    assert gate.admits(later, free=63, running=1).max_rows == 3


def test_a_probe_that_tells_nothing_lets_another_try() -> None:
    gate = gate_after(*[failed(ReasonCode.BUCKET_UNAVAILABLE)] * TRIPS_AFTER)
    later = NOON + FIRST_PAUSE
    assert gate.starts(LEASE, later)
    gate.ended(LEASE, None, later)
    assert gate.admits(later, free=8, running=0).max_rows == 1
    assert gate.starts(LEASE, later)
    gate.ended(LEASE, AlreadySettled(), later)
    assert gate.admits(later, free=8, running=0).max_rows == 1


def test_a_host_that_keeps_failing_stops_only_itself() -> None:
    gate = gate_after(*[failed(ReasonCode.SOURCE_UNAVAILABLE)] * TRIPS_AFTER)
    admission = gate.admits(NOON, free=8, running=0)
    assert (admission.max_rows, admission.closed_hosts) == (8, {"a.example"})
    assert not admission.probed_hosts, "not before its pause is over"
    assert not gate.starts(LEASE, NOON)
    assert gate.starts(OTHER_HOST, NOON)
    assert not gate.bucket_is_away


def test_a_host_that_the_settings_forbid_is_not_asked_for_one_output_after_the_other() -> None:
    gate = gate_after(*[failed(ReasonCode.BLOCKED_ADDRESS)] * TRIPS_AFTER)
    assert gate.admits(NOON, free=8, running=0).closed_hosts == {"a.example"}
    assert gate.starts(OTHER_HOST, NOON)
    assert not gate.bucket_is_away


def test_a_host_that_is_down_is_probed_one_output_at_a_time() -> None:
    gate = gate_after(*[failed(ReasonCode.SOURCE_UNAVAILABLE)] * TRIPS_AFTER)
    later = NOON + FIRST_PAUSE
    admission = gate.admits(later, free=8, running=0)
    assert (admission.closed_hosts, admission.probed_hosts) == (frozenset[str](), {"a.example"})
    assert gate.starts(LEASE, later)
    admission = gate.admits(later, free=8, running=1)
    assert (admission.closed_hosts, admission.probed_hosts) == ({"a.example"}, frozenset[str]())


def test_when_a_host_is_back_copies_from_it_come_back_as_a_slope() -> None:
    gate = gate_after(*[failed(ReasonCode.SOURCE_UNAVAILABLE)] * TRIPS_AFTER)
    later = NOON + FIRST_PAUSE
    assert gate.starts(LEASE, later), "the probe"
    assert not gate.starts(LEASE, later), "one at a time"
    gate.ended(LEASE, STORED, later)
    assert [gate.starts(LEASE, later) for _ in range(3)] == [True, True, False]
    admission = gate.admits(later, free=8, running=2)
    assert (admission.max_rows, admission.closed_hosts) == (8, {"a.example"})
    assert gate.starts(OTHER_HOST, later)
    gate.ended(LEASE, STORED, later)
    assert not gate.admits(later, free=8, running=2).closed_hosts
    assert [gate.starts(LEASE, later) for _ in range(4)] == [True, True, True, False]
    for _ in range(4):
        gate.ended(LEASE, STORED, later)
    for _ in range(8):
        assert gate.starts(LEASE, later)
        gate.ended(LEASE, STORED, later)
    assert all(gate.starts(LEASE, later) for _ in range(256))


def test_a_host_that_answers_about_one_output_is_well() -> None:
    gone = LostNow(ReasonCode.SOURCE_EXPIRED, "410")
    outcomes = [failed(ReasonCode.SOURCE_FORBIDDEN), gone] * TRIPS_AFTER
    assert not gate_after(*outcomes).admits(NOON, free=8, running=0).closed_hosts


def test_what_was_not_fetched_says_nothing_about_its_host() -> None:
    waited = LostNow(ReasonCode.SOURCE_UNAVAILABLE, "no new link", tried=False)
    assert not gate_after(*[waited] * TRIPS_AFTER).admits(NOON, free=8, running=0).closed_hosts


def test_failures_between_successes_open_nothing() -> None:
    outcomes = [failed(ReasonCode.BUCKET_UNAVAILABLE), STORED] * TRIPS_AFTER
    assert not gate_after(*outcomes).bucket_is_away


def test_copies_that_started_before_the_circuit_opened_do_not_prolong_it() -> None:
    gate = Gate()
    for _ in range(16):
        assert gate.starts(LEASE, NOON)
    for _ in range(16):
        gate.ended(LEASE, failed(ReasonCode.BUCKET_UNAVAILABLE), NOON)
    assert gate.admits(NOON, free=8, running=0).changes_at == NOON + FIRST_PAUSE


def test_pauses_grow_to_the_longest_and_no_further() -> None:
    circuit, now = Circuit(), NOON
    for _ in range(TRIPS_AFTER):
        circuit = circuit.started().failed(now)
    for _ in range(20):
        assert circuit.opens_until is not None
        now = circuit.opens_until
        circuit = circuit.started().failed(now)
    assert circuit.opens_until == now + LONGEST_PAUSE
    assert circuit.allows(now + LONGEST_PAUSE - timedelta(microseconds=1)) == 0
