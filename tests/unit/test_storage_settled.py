"""When nothing is still to happen to a generation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from shared.contracts.envelope import Context, seal
from shared.contracts.generation_events import LinksNotRenewed
from shared.contracts.storage_events import RefetchRequested
from storage_svc.domain.settled import unsettled_because
from tests.generation_events import (
    CANCELLED,
    FAILED,
    REQUESTED,
    STARTED,
    SUBMITTED,
    attempt_failed,
    completed,
    media_lost,
    media_stored,
    migrated,
    storage_failed,
)

if TYPE_CHECKING:
    from shared.contracts.events import AnyEvent

AT = datetime(2026, 5, 4, tzinfo=UTC)
ASKED = RefetchRequested(request=1, indexes=(0,), answer_by=AT)
RUN = (REQUESTED, STARTED, SUBMITTED)


def because(*events: AnyEvent) -> str | None:
    context = Context(source="tests")
    return unsettled_because(
        [seal(one, generation_id="g", at=AT, context=context) for one in events]
    )


@pytest.mark.parametrize(
    "events",
    [
        (*RUN, FAILED),
        (REQUESTED, CANCELLED),
        (*RUN, completed("bucket")),
        (*RUN, completed("bucket", "link"), storage_failed(1), media_stored(1), migrated(2)),
        (*RUN, completed("link"), media_lost(0)),
        (completed("bucket"),),
    ],
)
def test_a_generation_that_ended_and_whose_outputs_are_stored_or_lost_is_settled(
    events: tuple[AnyEvent, ...],
) -> None:
    assert because(*events) is None


@pytest.mark.parametrize(
    ("events", "why"),
    [
        ((REQUESTED,), "has not ended"),
        (RUN, "has not ended"),
        ((), "has not ended"),
        ((*RUN, completed("link")), "output 0 is not stored"),
        (
            (*RUN, completed("bucket", "link"), storage_failed(1), attempt_failed(1)),
            "output 1 is not stored",
        ),
        ((*RUN, completed("link", "link"), media_stored(0)), "output 1 is not stored"),
        ((*RUN, completed("link"), attempt_failed(0), ASKED), "output 0 is not stored"),
        (
            (
                *RUN,
                completed("link"),
                attempt_failed(0),
                ASKED,
                LinksNotRenewed(request=1, detail="gone"),
            ),
            "output 0 is not stored",
        ),
    ],
)
def test_a_generation_for_which_something_is_still_to_come_is_not_settled(
    events: tuple[AnyEvent, ...], why: str
) -> None:
    assert why in (because(*events) or "")
