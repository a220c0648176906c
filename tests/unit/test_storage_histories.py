"""Any history that was accepted replays, in the decider's state and in the backlog's rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given as hypothesis_given
from hypothesis import strategies as st

from shared.contracts.envelope import Recorded
from shared.contracts.generation_events import LinksNotRenewed, LinksRenewed
from storage_svc.domain.commands import (
    Command,
    EndWaiting,
    RejectQuarantined,
    ReleaseQuarantined,
)
from storage_svc.domain.decide import NotQuarantined, decide
from storage_svc.domain.state import AwaitingLink, Kept, Lost, Missing, Stored, evolve, fold
from storage_svc.read_model import rows
from storage_svc.read_model.entries import Entry, EntryState
from tests.storage_given import (
    LATER,
    NOON,
    ask,
    completed,
    fail,
    lose,
    not_renewed,
    refuse,
    renewed,
    sealed,
    store,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.events import AnyEvent
    from storage_svc.domain.state import OutputState
    from storage_svc.read_model.rows import Backlog


COUNT = 3
indexes = st.integers(0, COUNT - 1)
attempts = st.integers(1, 4)
links = st.integers(0, 3)
steps: st.SearchStrategy[Command | LinksRenewed | LinksNotRenewed] = st.one_of(
    st.builds(store, indexes, attempts),
    st.builds(fail, indexes, attempts),
    st.builds(lose, indexes, attempts, link=links),
    st.builds(refuse, indexes, attempts, link=links),
    st.builds(ask, indexes, attempts, link=links),
    st.builds(EndWaiting, indexes, st.sampled_from([NOON, LATER])),
    st.builds(ReleaseQuarantined, indexes),
    st.builds(RejectQuarantined, indexes, st.just("a page")),
    st.builds(renewed, st.integers(1, 3), indexes, indexes),
    st.builds(not_renewed, st.integers(1, 3)),
)


def decided(command: Command, history: Sequence[AnyEvent]) -> list[AnyEvent]:
    try:
        return [*decide(command, fold(map(sealed, history)))]
    except NotQuarantined:
        return []


@hypothesis_given(
    st.sets(st.integers(0, COUNT - 1), max_size=COUNT - 1), st.lists(steps, max_size=30)
)
def test_any_history_that_was_accepted_replays_and_no_decision_is_made_twice(
    at_once: set[int], steps: list[Command | LinksRenewed | LinksNotRenewed]
) -> None:
    first = completed(COUNT, at_once=sorted(at_once))
    history: list[AnyEvent] = [first]
    for step in steps:
        if isinstance(step, LinksRenewed | LinksNotRenewed):
            # The other service answers what was asked, once.
            state = fold(map(sealed, history))
            assert isinstance(state, Kept)
            known = {sealed(event).id for event in history}
            if step.request <= state.last_request and sealed(step).id not in known:
                history.append(step)
            continue
        history.extend(decided(step, history))
        assert decided(step, history) == []

    ids = [sealed(event).id for event in history]
    assert len(ids) == len(set(ids)), "no fact is said twice"

    state = fold(map(sealed, history))
    assert isinstance(state, Kept)
    all_stored = all(isinstance(output, Stored) for output in state.outputs.values())
    assert state.migration_completed == all_stored
    for event in history:
        assert evolve(state, sealed(event)) == state, "an event read again changes nothing"

    # The rows that people and workers see say the same as the state that decisions are made on.
    row: Backlog | None = None
    for position, event in enumerate(history, start=1):
        row = rows.evolve(row, Recorded(position, sealed(event)))
    assert row is not None
    for entry in row.entries:
        assert described(entry) == described(state.outputs[entry.output_index])


def described(output: Entry | OutputState) -> tuple[object, ...]:
    match output:
        case Entry(state=EntryState.STORED) | Stored():
            return ("stored",)
        case Entry():
            link = (output.source_url, output.dies_at, output.link)
            counts = (output.attempts, output.losses, output.asked, output.as_is)
            return (output.state.value, *link, *counts, output.rejected)
        case Missing(past) | AwaitingLink(past) | Lost(past):
            link = (past.link.source_url, past.link.dies_at, past.link.request)
            counts = (past.attempts, past.losses, past.asked, past.as_is)
            rejected = output.rejected if isinstance(output, Lost) else None
            return (_NAMES[type(output)], *link, *counts, rejected)


_NAMES = {Missing: "pending", AwaitingLink: "awaiting_link", Lost: "lost"}
