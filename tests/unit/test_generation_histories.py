"""Whatever commands come in whatever order: what is true of every history they can make."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from generation_svc.domain.commands import (
    Cancel,
    Command,
    Complete,
    Fail,
    RecordSubmitted,
    Request,
    StartSubmission,
)
from generation_svc.domain.decide import decide
from generation_svc.domain.state import Absent, Done, evolve, fold
from shared.contracts.codec import Codec, encode
from shared.contracts.facts import Output
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.storage_events import MigrationCompleted
from shared.errors import Refused
from tests.generation_events import (
    CANCELLED,
    DIES_AT,
    FAILED,
    completed,
    media_stored,
    storage_failed,
)
from tests.generation_given import history

if TYPE_CHECKING:
    from shared.contracts.events import AnyEvent

TERMINAL = (GenerationCompleted, GenerationFailed, GenerationCancelled)

attempts = st.integers(1, 4)
request_ids = st.sampled_from(["r1", "r2", "r3"])
urls = st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5)


@st.composite
def completions(draw: st.DrawFn) -> Complete:
    outputs = tuple(
        Output(index=index, source_url=url, expires_at=DIES_AT)
        for index, url in enumerate(draw(urls))
    )
    failed = draw(st.sets(st.integers(0, len(outputs) - 1)))
    failures = storage_failed(*sorted(failed)).failures if failed else ()
    return Complete(draw(request_ids), outputs, failures)


commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(Request, st.sampled_from(["ann", "bob"]), st.just("fal"), st.just("m"), st.just({})),
    st.builds(StartSubmission, attempts, st.uuids().map(str), st.integers(0, 3)),
    st.builds(RecordSubmitted, attempts, request_ids, *[st.just("https://queue/r")] * 3),
    completions(),
    st.builds(
        Fail,
        st.none() | request_ids,
        st.text(),
        st.text(),
        st.booleans(),
        st.none() | st.booleans(),
        st.booleans(),
    ),
    st.builds(Cancel, st.text()),
)
REQUEST = Request("ann", "fal", "m", {})


def accepted(asked: list[Command]) -> list[AnyEvent]:
    """The history that these commands make, refusals left out."""
    events: list[AnyEvent] = []
    for command in asked:
        try:
            events.extend(decide(command, fold(history(events))))
        except Refused:
            continue
    return events


sequences = st.lists(commands, max_size=12).map(lambda asked: [REQUEST, *asked])


@given(sequences)
def test_every_history_replays_from_the_logs_bytes_to_the_same_state(asked: list[Command]) -> None:
    envelopes = history(accepted(asked))
    codec = Codec()
    assert fold(codec.decode(encode(envelope)) for envelope in envelopes) == fold(envelopes)


@given(sequences, commands)
def test_deciding_the_same_command_twice_adds_nothing(
    asked: list[Command], command: Command
) -> None:
    events = accepted(asked)
    try:
        once = decide(command, fold(history(events)))
    except Refused:
        return
    assert decide(command, fold(history([*events, *once]))) == []


@given(sequences)
def test_there_is_one_end_and_nothing_but_its_trimmings_after_it(asked: list[Command]) -> None:
    events = accepted(asked)
    ends = [place for place, event in enumerate(events) if isinstance(event, TERMINAL)]
    assert bool(ends) == isinstance(fold(history(events)), Done)
    match [events[place] for place in ends]:
        case [GenerationFailed(given_up=True), GenerationCompleted()]:
            pass  # media came after all, for what only we had given up on
        case found:
            assert len(found) <= 1
    if ends:
        after = events[ends[-1] + 1 :]
        assert all(isinstance(event, StorageFailed | GenerationSubmitted) for event in after)


@given(sequences)
def test_no_paid_call_is_announced_twice_and_none_is_left_out(asked: list[Command]) -> None:
    started = [e.attempt for e in accepted(asked) if isinstance(e, SubmissionStarted)]
    assert started == list(range(1, len(started) + 1))


@given(sequences)
def test_no_two_events_of_a_generation_have_one_id(asked: list[Command]) -> None:
    # The log takes the second event with an id for a repeat of the first, and drops it.
    ids = Counter(envelope.id for envelope in history(accepted(asked)))
    assert not ids or max(ids.values()) == 1


@given(sequences, completions())
def test_outputs_keep_their_order_and_their_links(asked: list[Command], done: Complete) -> None:
    state = fold(history(accepted(asked)))
    match decide(done, state):
        case [GenerationCompleted() as end, *_]:
            assert [output.source_url for output in end.outputs] == [
                output.source_url for output in done.outputs
            ]
        case events:
            assert isinstance(state, Done)
            assert state.open_since is None
            assert events == []


anything: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(SubmissionStarted, attempt=attempts, claim=st.text()),
    st.builds(
        GenerationSubmitted,
        attempt=attempts,
        request_id=request_ids,
        status_url=st.just(""),
        response_url=st.just(""),
        cancel_url=st.just(""),
    ),
    st.sampled_from(
        [
            GenerationRequested(user_id="ann", provider="fal", model="m", input={}),
            completed("link", "bucket"),
            FAILED,
            FAILED.model_copy(update={"given_up": True}),
            CANCELLED,
            storage_failed(0),
            media_stored(0),
            MigrationCompleted(file_count=1, total_size_bytes=1),
        ]
    ),
)


@given(st.lists(anything, max_size=15))
@settings(max_examples=200)
def test_a_history_that_no_decision_of_ours_made_is_read_all_the_same(
    events: list[AnyEvent],
) -> None:
    state = Absent()
    finished: Done | None = None
    for envelope in history(events):
        state = evolve(state, envelope)
        if isinstance(state, Done):
            if finished is None or finished.open_since is not None:
                finished = state
            assert state.outcome == finished.outcome
        else:
            assert finished is None
