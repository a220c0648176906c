"""Events go to the aggregate they speak of. Checked before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shared.contracts.envelope import UnknownEvent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.envelope import Envelope
    from shared.contracts.facts import Family


def check_addressed(family: Family, generation_id: str, events: Sequence[Envelope]) -> None:
    """See that all events belong to this aggregate, and that there are some.

    Raises:
        ValueError: a mistake in the program that appends.
    """
    if not events:
        raise ValueError("there is nothing to append")
    for event in events:
        if event.subject != generation_id:
            raise ValueError(f"{event.id} is about {event.subject}, not about {generation_id}")
        if isinstance(event.data, UnknownEvent) or event.data.family != family:
            raise ValueError(f"{event.id} does not belong to the {family} family")
