"""A plan in words: what is unlike other times is said."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console

from shared.projection.rebuild_plan import Plan
from velro.replaying_plan import Planned, show_briefly, show_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PLAN = Plan(
    read_model="generation",
    begins_at=0,
    dropped=None,
    ends_at=8,
    aggregates=2,
    tables=(),
    sampled=8,
    events_per_s=1000.0,
    processes=1,
    starting_s=0.0,
    serving=None,
    other_log=None,
)


def words(show: Callable[[Sequence[Planned], Console], None], plan: Plan) -> str:
    console = Console(file=StringIO(), width=1000)
    with console.capture() as captured:
        show([Planned(plan, from_archive=False)], console)
    return captured.get()


def test_why_an_interrupted_rebuild_is_dropped_is_said_before_it_is() -> None:
    dropped = replace(PLAN, dropped="another version of the program began it")
    said = "an interrupted rebuild is dropped: another version of the program began it"
    for show in (show_briefly, show_whole):
        assert said in words(show, dropped)
        assert "is dropped" not in words(show, PLAN)


def test_a_plan_that_would_be_refused_says_so() -> None:
    of_another = replace(PLAN, other_log="stream VELRO ends at position 0")
    told = words(show_whole, of_another)
    assert "what serves is of another log. stream VELRO ends at position 0." in told
    assert "unless --accept-differences is said" in told
    assert "there are no tables yet" in words(show_whole, PLAN)
