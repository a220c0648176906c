"""Copy fresh outputs into the bucket while the user waits, inside a budget, and never longer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from shared.contracts.events import Output, OutputFailure
from shared.contracts.reasons import ReasonCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.contracts.events import StoredObject


class CopyFailed(Exception):
    """One output was not copied; the reason is one that alerts and the retry policy know."""

    def __init__(self, reason: ReasonCode, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class OutputCopier(Protocol):
    """Copies one output from the provider's link to its deterministic key."""

    async def copy(
        self, output: Output, *, provider: str, user_id: str, generation_id: str
    ) -> StoredObject:
        """Copy it. Safe to repeat, and to cancel.

        Raises:
            CopyFailed: it is not stored, with the reason.
        """
        ...


@dataclass(frozen=True, slots=True)
class StoredAtOnce:
    """Every output, by index, with its stored object where there is one, and what failed."""

    outputs: tuple[Output, ...]
    failures: tuple[OutputFailure, ...]


async def store_outputs(
    outputs: Sequence[Output],
    *,
    provider: str,
    user_id: str,
    generation_id: str,
    copier: OutputCopier,
    budget_s: float,
) -> StoredAtOnce:
    """Try every output once, at the same time. A budget of 0 tries none, and none has failed."""
    if budget_s <= 0:
        return StoredAtOnce(tuple(outputs), ())

    async def attempt(output: Output) -> Output | OutputFailure:
        try:
            async with asyncio.timeout(budget_s):
                stored = await copier.copy(
                    output, provider=provider, user_id=user_id, generation_id=generation_id
                )
        except TimeoutError:
            detail = f"not stored within the budget of {budget_s:g} s"
            return OutputFailure(index=output.index, reason=ReasonCode.TOO_SLOW, detail=detail)
        except CopyFailed as failed:
            detail = failed.detail[:2000]
            return OutputFailure(index=output.index, reason=failed.reason, detail=detail)
        return output.model_copy(update={"stored": stored})

    tried = await asyncio.gather(*(attempt(output) for output in outputs))
    failures = tuple(result for result in tried if isinstance(result, OutputFailure))
    stored = {result.index: result for result in tried if isinstance(result, Output)}
    return StoredAtOnce(tuple(stored.get(output.index, output) for output in outputs), failures)
