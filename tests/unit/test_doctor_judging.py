"""What numbers mean, where no server can be brought to show them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from velro.doctor.access import judged_access
from velro.doctor.archive import judged_age
from velro.doctor.clocks import judged_skew
from velro.doctor.consumers import judged_consumer
from velro.doctor.findings import Finding, Level, worst
from velro.doctor.nats import judged_replicas, judged_space, judged_version

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("2.11.9", Level.RED),
        ("2.12.0", Level.YELLOW),
        ("2.12.2", Level.YELLOW),
        ("2.12.3", Level.GREEN),
        ("2.15.1", Level.GREEN),
        ("3.0.0", Level.GREEN),
    ],
)
def test_a_server_is_old_or_too_old(version: str, level: Level) -> None:
    assert judged_version(version).level is level


@pytest.mark.parametrize(
    ("skew_s", "level"),
    [(0, Level.GREEN), (4, Level.GREEN), (-10, Level.YELLOW), (61, Level.RED), (-120, Level.RED)],
)
def test_a_clock_may_be_off_by_some_seconds_and_no_more(skew_s: float, level: Level) -> None:
    theirs = NOON + timedelta(seconds=skew_s)
    assert judged_skew(theirs, NOON, NOON).level is level


def test_a_slow_answer_is_not_taken_for_a_wrong_clock() -> None:
    assert judged_skew(NOON, NOON, NOON + timedelta(seconds=16)).level is Level.GREEN


@pytest.mark.parametrize(
    ("used", "level"), [(10, Level.GREEN), (81, Level.YELLOW), (96, Level.RED)]
)
def test_the_fullest_of_all_limits_counts(used: float, level: Level) -> None:
    found = judged_space([("roomy", 1, 100), ("tight", used, 100)])
    assert found.level is level


@pytest.mark.parametrize(
    ("minutes", "level"), [(4, Level.GREEN), (8, Level.YELLOW), (90, Level.RED)]
)
def test_what_is_not_archived_long_after_it_was_due_is_told(minutes: int, level: Level) -> None:
    waits, due = timedelta(minutes=minutes), timedelta(minutes=5)
    assert judged_age(3, waits, due=due).level is level


def info(replicas: int, *late: str) -> dict[str, Any]:
    peers = [{"name": name, "current": False} for name in late]
    return {"config": {"num_replicas": replicas}, "cluster": {"replicas": peers}}


def test_one_replica_is_enough_on_a_machine_of_ones_own_and_a_warning_elsewhere() -> None:
    assert judged_replicas(info(1), wanted=1, here=True).level is Level.GREEN
    assert judged_replicas(info(1), wanted=1, here=False).level is Level.YELLOW
    assert judged_replicas(info(1), wanted=3, here=False).level is Level.RED
    assert judged_replicas(info(3), wanted=3, here=False).level is Level.GREEN


def test_a_replica_that_lags_behind_is_named() -> None:
    found = judged_replicas(info(3, "nats-2"), wanted=3, here=False)
    assert found.level is Level.RED
    assert "nats-2" in found.found


def consumer(*, pending: int, taken: int, asking: int, delivered: int) -> dict[str, Any]:
    return {
        "num_pending": pending,
        "num_ack_pending": taken,
        "num_waiting": asking,
        "delivered": {"consumer_seq": delivered},
        "ack_floor": {"consumer_seq": delivered - taken},
    }


def test_a_consumer_stands_still_when_work_waits_and_nothing_moves() -> None:
    idle = consumer(pending=0, taken=0, asking=1, delivered=5)
    nobody = consumer(pending=0, taken=0, asking=0, delivered=5)
    stuck = consumer(pending=3, taken=0, asking=1, delivered=5)
    busy = consumer(pending=3, taken=2, asking=0, delivered=5)
    further = consumer(pending=2, taken=2, asking=0, delivered=6)
    assert judged_consumer(idle, idle).level is Level.GREEN
    assert judged_consumer(nobody, nobody).level is Level.RED
    assert judged_consumer(nobody, idle).level is Level.GREEN
    assert judged_consumer(stuck, stuck).level is Level.RED
    assert judged_consumer(busy, busy).level is Level.YELLOW
    assert judged_consumer(busy, further).level is Level.GREEN


def test_the_whole_is_as_bad_as_its_worst_finding() -> None:
    def findings(*levels: Level) -> list[Finding]:
        return [Finding("a check", level, "so") for level in levels]

    assert worst(findings()) is Level.GREEN
    assert worst(findings(Level.GREEN, Level.YELLOW)) is Level.YELLOW
    assert worst(findings(Level.YELLOW, Level.RED, Level.GREEN)) is Level.RED


@pytest.mark.parametrize(
    ("told", "level", "says"),
    [
        ({"here": True, "open_to_all": True}, Level.GREEN, "everybody is let in"),
        ({"open_to_all": True, "encrypted": True}, Level.YELLOW, "whoever reaches the server"),
        ({"with_password": True}, Level.YELLOW, "the password can be read"),
        ({"with_password": True, "here": True}, Level.GREEN, "not encrypted, with a login"),
        ({"with_password": True, "encrypted": True}, Level.GREEN, "over TLS, with a login"),
        ({"expires_at": datetime.now(UTC) + timedelta(days=6)}, Level.YELLOW, "expire at"),
        ({"expires_at": datetime.now(UTC) + timedelta(days=8)}, Level.GREEN, "until 20"),
    ],
)
def test_what_lets_in_may_be_nothing_or_be_read_or_expire(
    told: dict[str, Any], level: Level, says: str
) -> None:
    nothing: dict[str, Any] = {
        "open_to_all": False,
        "encrypted": False,
        "with_password": False,
        "expires_at": None,
        "here": False,
    }
    found = judged_access(**nothing | told)
    assert found.level is level
    assert says in found.found
