"""What to say while generations are waited for and none of them moves."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from velro.client import WATCH_S, ApiAway

if TYPE_CHECKING:
    from rich.console import Console

    from velro.client import Api

STILL_S: Final = 5.0
_WAITS_FOR: Final = {
    "requested": "queued: the service is at work on others, or no process of it takes new ones",
    "submitting": "being handed to the provider, which has not taken it yet",
    "running": "with the provider, which is at work on it",
}


@dataclass(slots=True)
class Waiting:
    """What is waited for.

    Attributes:
        statuses: of each generation that is not finished, by id.
        moved: set when one of them changes.
    """

    statuses: dict[str, str] = field(default_factory=dict[str, str])
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def saw(self, generation_id: str, status: str, *, finished: bool = False) -> None:
        """One has this status now."""
        if finished:
            self.statuses.pop(generation_id, None)
        else:
            self.statuses[generation_id] = status
        self.moved.set()

    async def told(self, api: Api, console: Console, *, still_s: float = STILL_S) -> None:
        """Say what is going on whenever nothing has moved for so long; until cancelled."""
        while True:
            self.moved.clear()
            try:
                async with asyncio.timeout(still_s):
                    await self.moved.wait()
            except TimeoutError:
                if self.statuses:
                    console.print(f"nothing moves: {await self._why(api)}", soft_wrap=True)
                    console.print(
                        f"waiting for up to {WATCH_S // 60} minutes; Ctrl-C leaves the request in "
                        f"place, and {self.later}",
                        soft_wrap=True,
                    )
                await self.moved.wait()

    @property
    def later(self) -> str:
        """How to see what became of them where nobody waits."""
        shown = next(iter(self.statuses)) if len(self.statuses) == 1 else "ID"
        return f"`velro show {shown}` tells what became of it"

    async def _why(self, api: Api) -> str:
        try:
            problems = await api.problems()
        except ApiAway as error:
            return f"{error}"
        if problems:
            return f"the generation service is not ready: {'; '.join(problems)}"
        counts = dict.fromkeys(self.statuses.values(), 0)
        for status in self.statuses.values():
            counts[status] += 1
        return "; ".join(
            f"{count} {_WAITS_FOR.get(status, status)}" for status, count in counts.items()
        )
