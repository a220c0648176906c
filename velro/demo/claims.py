"""What the demo claims: nothing is printed as true that was not checked."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Generator

    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence, and whether it was found to be true."""

    sentence: str
    holds: bool


@dataclass(slots=True)
class Act:
    """A part of the story, the claims made in it, and how long it took."""

    title: str
    claims: list[Claim] = field(default_factory=list[Claim])
    took_s: float = 0.0


@dataclass(slots=True)
class Claims:
    """The claims made so far, by act."""

    console: Console
    acts: list[Act] = field(default_factory=list[Act])

    @property
    def all_hold(self) -> bool:
        """Whether every act made claims, and every one is true."""
        return bool(self.acts) and all(
            act.claims and all(claim.holds for claim in act.claims) for act in self.acts
        )

    @contextmanager
    def act(self, title: str) -> Generator[None]:
        """Make claims in this act."""
        self.console.rule(f"[bold]{len(self.acts) + 1}. {title}", align="left")
        act = Act(title)
        self.acts.append(act)
        started_at = monotonic()
        yield
        act.took_s = monotonic() - started_at

    def claim(self, sentence: str, *, holds: bool, seen: str = "") -> None:
        """Make one, and print it as what it is."""
        self.acts[-1].claims.append(Claim(sentence, holds))
        mark = "[green]✓[/]" if holds else "[bold red]✗[/]"
        self.console.print(f"  {mark} {sentence}" + (f"  [dim]{seen}[/]" if seen else ""))

    def counted(self, sentence: str, *, found: int, of: int) -> None:
        """Claim that all of so many are as they should be."""
        self.claim(sentence, holds=found == of > 0, seen=f"{found} of {of}")

    def table(self) -> Table:
        """One row an act, and what does not hold by name."""
        table = Table("", "what happened", "claims checked", "seconds")
        for number, act in enumerate(self.acts, start=1):
            broken = [claim.sentence for claim in act.claims if not claim.holds]
            checked = f"{len(act.claims) - len(broken)} of {len(act.claims)} hold"
            verdict = "\n".join([f"[red]{checked}[/]", *broken]) if broken else checked
            table.add_row(f"{number}", act.title, verdict, f"{act.took_s:.1f}")
        return table
