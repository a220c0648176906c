"""Copies made while the user waits: inside a budget, and whatever becomes of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from generation_svc.application.store_outputs import StoredAtOnce, store_outputs
from shared.contracts.facts import Output, OutputFailure
from shared.contracts.reasons import ReasonCode
from shared.media.copying import CopyFailed, CopyOrder
from tests.generation_events import DIES_AT
from tests.generation_world import ScriptedCopier, stored_object

if TYPE_CHECKING:
    from collections.abc import Sequence

THREE = tuple(
    Output(
        index=index,
        source_url=f"https://media.example/{name}",
        expires_at=DIES_AT + timedelta(seconds=index),
        media_type="image/png",
    )
    for index, name in enumerate(("z", "a", "m"))
)


async def store(
    copier: ScriptedCopier, outputs: Sequence[Output] = THREE, *, budget_s: float = 30.0
) -> StoredAtOnce:
    return await store_outputs(
        outputs,
        provider="fal",
        user_id="ann",
        generation_id="g",
        copier=copier,
        budget_s=budget_s,
    )


def with_stored(output: Output) -> Output:
    return output.model_copy(update={"stored": stored_object(output.index)})


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_every_output_is_stored_and_keeps_its_place_and_link() -> None:
    copier = ScriptedCopier()
    result = await store(copier)
    assert result == StoredAtOnce(tuple(map(with_stored, THREE)), ())
    assert copier.orders[1] == CopyOrder(
        generation_id="g",
        output_index=1,
        user_id="ann",
        provider="fal",
        source_url="https://media.example/a",
        media_type="image/png",
        dies_at=DIES_AT + timedelta(seconds=1),
    )


@pytest.mark.parametrize("failed", [0, 1, 2])
async def test_one_that_fails_takes_no_other_with_it_and_moves_none(failed: int) -> None:
    error = CopyFailed(ReasonCode.BUCKET_UNAVAILABLE, "503")
    result = await store(ScriptedCopier({failed: error}))
    assert result.outputs == tuple(
        output if output.index == failed else with_stored(output) for output in THREE
    )
    assert result.failures == (
        OutputFailure(index=failed, reason=ReasonCode.BUCKET_UNAVAILABLE, detail="503"),
    )


async def test_whichever_is_done_first_the_order_stays() -> None:
    turns = {0: asyncio.Event(), 1: asyncio.Event()}

    async def after_the_next() -> None:
        await turns[0].wait()

    async def after_the_last() -> None:
        await turns[1].wait()
        turns[0].set()

    async def at_once() -> None:
        await asyncio.sleep(0)
        turns[1].set()

    result = await store(ScriptedCopier({0: after_the_next, 1: after_the_last, 2: at_once}))
    assert result == StoredAtOnce(tuple(map(with_stored, THREE)), ())


async def test_what_takes_longer_than_the_budget_is_left_for_later_and_ended() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await forever()
        finally:
            ended.append("cleaned up")

    result = await store(ScriptedCopier({1: endless}), budget_s=0.05)
    assert [output.stored is not None for output in result.outputs] == [True, False, True]
    (failure,) = result.failures
    assert (failure.index, failure.reason) == (1, ReasonCode.TOO_SLOW)
    assert "0.05 s" in failure.detail
    assert ended == ["cleaned up"]


async def test_without_a_budget_nothing_is_tried_and_nothing_has_failed() -> None:
    copier = ScriptedCopier()
    assert await store(copier, budget_s=0.0) == StoredAtOnce(THREE, ())
    assert copier.orders == []


async def test_a_copier_that_breaks_is_one_output_for_later_and_no_end() -> None:
    result = await store(ScriptedCopier({2: RuntimeError("x" * 5000)}))
    (failure,) = result.failures
    assert (failure.index, failure.reason) == (2, ReasonCode.INTERNAL)
    assert failure.detail.startswith("RuntimeError: xxx")
    assert result.outputs == (with_stored(THREE[0]), with_stored(THREE[1]), THREE[2])


async def test_a_sentence_of_any_length_fits_the_event() -> None:
    error = CopyFailed(ReasonCode.SOURCE_UNAVAILABLE, "x" * 5000)
    (failure,) = (await store(ScriptedCopier({0: error}))).failures
    assert failure.detail == "x" * 2000


async def test_a_run_that_is_cancelled_leaves_no_copy_behind() -> None:
    begun, ended = asyncio.Semaphore(0), 0

    async def endless() -> None:
        nonlocal ended
        begun.release()
        try:
            await forever()
        finally:
            await asyncio.sleep(0)  # cleaning up takes a turn
            ended += 1

    copying = asyncio.create_task(store(ScriptedCopier(dict.fromkeys(range(3), endless))))
    for _ in THREE:
        await begun.acquire()
    copying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await copying
    assert ended == 3
