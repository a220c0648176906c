"""What becomes of an output whose link is dead, or whose bytes are no media."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
)
from storage_svc.domain.commands import (
    Command,
    RejectQuarantined,
    ReleaseQuarantined,
)
from storage_svc.domain.decide import NotQuarantined, is_quarantined
from storage_svc.domain.state import AwaitingLink, Link, Missing
from tests.storage_given import (
    LATER,
    NOON,
    REJECT,
    RELEASE,
    ask,
    completed,
    fail,
    given,
    lose,
    not_renewed,
    refuse,
    renewed,
    sealed,
    store,
    wait_until,
)


def test_a_dead_link_is_asked_for_once() -> None:
    asked = given(completed(2)).when(ask(0)).when(ask(0)).when(ask(0, 2))
    asked.then(MigrationAttemptFailed, RefetchRequested)
    assert asked.new[-1] == RefetchRequested(request=1, indexes=(0,), answer_by=LATER)
    assert isinstance(asked.output(), AwaitingLink)


def test_requests_of_one_generation_have_numbers_of_their_own() -> None:
    asked = given(completed(2)).when(ask(0)).when(ask(1))
    assert [e.request for e in asked.new if isinstance(e, RefetchRequested)] == [1, 2]


def test_a_new_link_is_tried_with_a_fresh_memory() -> None:
    output = given(completed(1)).when(ask(0)).said(renewed(1)).output()
    assert isinstance(output, Missing)
    assert output.reason is None, "what the old link said is not held against the new one"
    assert output.past.link == Link(
        "https://media.example/0-1.png", LATER + timedelta(hours=1), request=1
    )
    assert (output.past.attempts, output.past.requests) == (1, 1)


def test_a_new_link_for_one_output_leaves_the_others_links_alone() -> None:
    before = given(completed(3)).when(ask(1)).when(ask(2))
    after = before.said(renewed(1, 0, 1, 2))
    assert after.output(0) == before.output(0), "it asked for nothing"
    assert isinstance(after.output(1), Missing)
    assert after.output(2) == before.output(2), "it asked in another request"


def test_a_link_that_is_not_renewed_is_lost_for_the_reason_it_had() -> None:
    ended = given(completed(1)).when(ask(0)).said(not_renewed(1)).when(wait_until(NOON))
    lost = ended.new[-1]
    assert isinstance(lost, MediaLost)
    assert (lost.reason, lost.attempt) == (ReasonCode.SOURCE_EXPIRED, 1)
    assert lost.detail == "410 Gone; no new link: the provider has forgotten it"


def test_a_new_link_is_waited_for_as_long_as_was_said() -> None:
    asked = given(completed(1)).when(ask(0))
    asked.when(wait_until(LATER - timedelta(seconds=1))).then(
        MigrationAttemptFailed, RefetchRequested
    )
    asked.when(wait_until(LATER)).then(MigrationAttemptFailed, RefetchRequested, MediaLost)


def test_a_new_link_that_came_in_time_is_not_waited_for_any_more() -> None:
    asked = given(completed(1)).when(ask(0)).said(renewed(1))
    asked.when(wait_until(LATER)).then(MigrationAttemptFailed, RefetchRequested)


def test_a_new_link_that_comes_too_late_brings_the_output_back() -> None:
    late = given(completed(1)).when(ask(0)).when(wait_until(LATER)).said(renewed(1))
    assert isinstance(late.output(), Missing)
    late.when(lose(0, 2, link=1)).then(
        MigrationAttemptFailed, RefetchRequested, MediaLost, MediaLost
    )


def test_what_is_found_out_about_an_old_link_does_not_end_a_new_one() -> None:
    asked = given(completed(1)).when(ask(0)).said(renewed(1))
    asked.when(lose(0, 2)).when(ask(0, 2)).then(MigrationAttemptFailed, RefetchRequested)
    # Decided on what the log held a moment before the new link came, and written after it.
    outrun = MediaLost(index=0, attempt=1, reason=ReasonCode.SOURCE_EXPIRED, detail="too late")
    assert isinstance(asked.said(outrun).output(), Missing)


def test_a_second_request_follows_the_death_of_the_second_link() -> None:
    asked = given(completed(1)).when(ask(0)).said(renewed(1)).when(ask(0, 2, link=1))
    output = asked.said(renewed(1)).output()
    assert isinstance(output, AwaitingLink), "an answer is no answer to a later request"
    assert (output.past.requests, output.past.asked) == (2, 2)


def test_bytes_that_arrive_while_a_new_link_is_waited_for_are_kept() -> None:
    given(completed(1)).when(ask(0)).when(store(0, 2)).then(
        MigrationAttemptFailed, RefetchRequested, MediaStored, MigrationCompleted
    )


def test_what_is_no_media_waits_for_a_person() -> None:
    quarantined = given(completed(1)).when(refuse(0))
    assert is_quarantined(quarantined.output())
    (lost,) = quarantined.new
    assert isinstance(lost, MediaLost)
    assert lost.media_type == "text/html"


def test_a_release_brings_the_output_back_as_it_is() -> None:
    released = given(completed(1)).when(refuse(0)).when(RELEASE).when(RELEASE)
    released.then(MediaLost, QuarantineReleased)
    output = released.output()
    assert isinstance(output, Missing)
    assert output.past.as_is
    released.when(store(0, 2)).then(MediaLost, QuarantineReleased, MediaStored, MigrationCompleted)


def test_a_release_of_a_link_that_died_meanwhile_is_a_second_loss() -> None:
    lost = given(completed(1)).when(refuse(0)).when(RELEASE).when(lose(0, 2))
    lost.then(MediaLost, QuarantineReleased, MediaLost)
    assert not is_quarantined(lost.output()), "there is nothing left to look at"
    ids = [sealed(event).id for event in lost.new]
    assert len(set(ids)) == len(ids)


def test_what_a_slower_worker_says_does_not_undo_a_release() -> None:
    given(completed(1)).when(refuse(0)).when(RELEASE).when(refuse(0)).then(
        MediaLost, QuarantineReleased
    )


def test_a_rejection_is_for_good() -> None:
    rejected = given(completed(1)).when(refuse(0)).when(REJECT).when(REJECT)
    rejected.then(MediaLost, QuarantineRejected)
    assert not is_quarantined(rejected.output())
    with pytest.raises(NotQuarantined, match="rejected for good: asks for a password"):
        rejected.when(RELEASE)
    rejected.when(fail(0, 2)).when(ask(0, 2)).when(lose(0, 2)).then(MediaLost, QuarantineRejected)


@pytest.mark.parametrize("judgement", [ReleaseQuarantined(0), RejectQuarantined(0, "why")])
@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ([], "waits to be copied"),
        ([store(0)], "it is stored"),
        ([lose(0)], "given up on for source_expired. `storage-svc retry` tries it again"),
        ([ask(0)], "waits to be copied"),
    ],
)
def test_only_what_is_quarantined_is_judged(
    judgement: Command, history: list[Command], sentence: str
) -> None:
    so_far = given(completed(1))
    for command in history:
        so_far = so_far.when(command)
    with pytest.raises(NotQuarantined, match=sentence):
        so_far.when(judgement)
