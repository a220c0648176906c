"""Copy fresh outputs into the bucket while the user waits, inside a budget, and never longer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from shared.contracts.facts import Output, OutputFailure
from shared.contracts.reasons import ReasonCode
from shared.errors import in_words
from shared.media.copying import CopyFailed, CopyOrder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.media.copying import Copier

log = structlog.get_logger()


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
    copier: Copier,
    budget_s: float,
) -> StoredAtOnce:
    """Try every output once, at the same time. A budget of 0 tries none, and none has failed.

    Nothing that goes wrong here is raised: the media exists, and the user is to see it.
    """
    if budget_s <= 0:
        return StoredAtOnce(tuple(outputs), ())

    async def attempt(output: Output) -> Output | OutputFailure:
        try:
            async with asyncio.timeout(budget_s):
                stored = await copier.copy(
                    CopyOrder(
                        generation_id=generation_id,
                        output_index=output.index,
                        user_id=user_id,
                        provider=provider,
                        source_url=output.source_url,
                        media_type=output.media_type,
                        dies_at=output.expires_at,
                    )
                )
        except TimeoutError:
            detail = f"not stored within the budget of {budget_s:g} s"
            return OutputFailure(index=output.index, reason=ReasonCode.TOO_SLOW, detail=detail)
        except CopyFailed as failed:
            detail = failed.detail[:2000]
            return OutputFailure(index=output.index, reason=failed.reason, detail=detail)
        except Exception as error:
            log.exception("copy_broke", generation_id=generation_id, index=output.index)
            detail = in_words(error)[:2000]
            return OutputFailure(index=output.index, reason=ReasonCode.INTERNAL, detail=detail)
        return output.model_copy(update={"stored": stored})

    async with asyncio.TaskGroup() as group:
        attempts = [group.create_task(attempt(output)) for output in outputs]
    tried = [done.result() for done in attempts]
    failures = tuple(result for result in tried if isinstance(result, OutputFailure))
    stored = {result.index: result for result in tried if isinstance(result, Output)}
    return StoredAtOnce(tuple(stored.get(output.index, output) for output in outputs), failures)
