"""Given a history, when a command, then events: what the generation service decides, in words."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from generation_svc.domain.decide import decide
from generation_svc.domain.state import State, fold
from shared.contracts.envelope import Context, Envelope, seal
from tests.generation_events import NOON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from generation_svc.domain.commands import Command
    from shared.contracts.events import AnyEvent
    from shared.errors import Refused

ID = "generation-1"


def history(events: Sequence[AnyEvent]) -> list[Envelope]:
    """Events as the log holds them, a second apart, from noon on."""
    return [
        seal(
            event,
            generation_id=ID,
            at=NOON + timedelta(seconds=seconds),
            context=Context(source="test"),
        )
        for seconds, event in enumerate(events)
    ]


def state_after(*events: AnyEvent) -> State:
    return fold(history(events))


@dataclass(frozen=True)
class Decision:
    command: Command
    state: State

    def then(self, *events: AnyEvent) -> None:
        assert decide(self.command, self.state) == list(events)

    def then_nothing_happens(self) -> None:
        assert decide(self.command, self.state) == []

    def then_refused(self, error: type[Refused]) -> None:
        with pytest.raises(error):
            decide(self.command, self.state)


@dataclass(frozen=True)
class Given:
    state: State

    def when(self, command: Command) -> Decision:
        return Decision(command, self.state)


def given(*events: AnyEvent) -> Given:
    return Given(state_after(*events))
