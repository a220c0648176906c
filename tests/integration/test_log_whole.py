"""A log that lost its beginning, or all of it, is not taken for a whole one."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from generation_svc.read_model.model import GenerationModel
from shared.archive.archived_log import ArchivedLog
from shared.contracts.subjects import Subjects
from shared.event_log.jetstream_api import ask
from shared.event_log.jetstream_trim import TrimmableStream
from shared.event_log.port import LogMismatch, LogUnavailable
from shared.projection.batch import Decoding
from shared.projection.recognised_log import RecognisedLog
from shared.projection.runner import Projector, ProjectorState
from tests.archives import Archived, BucketAway, velro_environment
from tests.programs import velro
from tests.projecting import QUICK, until_state

if TYPE_CHECKING:
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
def env(nats_url: str, subject_root: str, stream: str, bucket: S3Address) -> dict[str, str]:
    return velro_environment(
        nats_url=nats_url, subject_root=subject_root, stream=stream, bucket=bucket
    )


async def positions_of(log: ArchivedLog, generation_id: str) -> list[int]:
    return [event.position for event in (await log.load("generation", generation_id)).events]


async def index_lost(archived: Archived) -> None:
    await ask(
        archived.connection, f"$JS.API.STREAM.DELETE.{archived.stream}_TRIMMED", None, timeout_s=5
    )


async def test_without_the_index_of_what_was_trimmed_nothing_is_decided_until_it_is_made_anew(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 40)
    await archived.catch_up()
    await archived.trim()
    await index_lost(archived)
    # To a load an old generation would look like a new one, and would be paid for again.
    with pytest.raises(LogUnavailable, match="its beginning was taken away in another way"):
        await archived.whole_log.load("generation", "g7")
    with pytest.raises(LogMismatch, match="begins at position 40"):
        await archived.whole_log.see_that_it_is_whole()

    code, out = await velro(env, "restore", "--dry-run")
    assert code == 0, out
    assert "positions 1 to 39 are in the archive alone" in out
    with pytest.raises(LogUnavailable):
        await archived.whole_log.load("generation", "g7")
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert "39 events are found in the archive again" in out
    await archived.whole_log.see_that_it_is_whole()
    assert await positions_of(archived.whole_log, "g7") == [7]
    assert await positions_of(archived.whole_log, "new") == []
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert "nothing to do" in out


async def test_a_beginning_that_was_purged_by_hand_is_found_in_the_archive_again(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 40)
    await archived.catch_up()
    await archived.trim()
    await archived.fill(41, 60)
    await archived.catch_up()
    log = archived.whole_log
    assert await positions_of(log, "g7") == [7]
    await TrimmableStream(archived.connection, archived.stream).purge_until(50)
    with pytest.raises(LogUnavailable, match="what is up to 39 was trimmed"):
        await archived.whole_log.load("generation", "g45")
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert "positions 40 to 50 are in the archive alone" in out
    for number in (7, 40, 45, 50, 51):
        assert await positions_of(archived.whole_log, f"g{number}") == [number]
    async with aclosing(archived.whole_log.read(after=0, until=60)) as source:
        assert [r.position async for batch in source for r in batch] == list(range(1, 61))


async def test_what_is_in_neither_stream_nor_archive_is_said_to_be_gone(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await archived.fill(21, 30)
    await TrimmableStream(archived.connection, archived.stream).purge_until(25)
    code, out = await velro(env, "restore")
    assert code != 0
    assert "begins at position 26, and the archive ends at 20" in out


async def test_a_stream_that_was_emptied_is_to_be_made_anew_and_is_then_filled(
    archived: Archived, env: dict[str, str]
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await TrimmableStream(archived.connection, archived.stream).purge_until(20)
    code, out = await velro(env, "restore")
    assert code != 0
    assert "Delete it (nats stream rm), and run this again" in out
    await archived.delete_stream()
    code, out = await velro(env, "restore")
    assert code == 0, out
    assert await positions_of(archived.whole_log, "g7") == [7]


async def test_an_empty_log_is_not_worked_on_where_the_archive_is_not_even_beside_empty_tables(
    archived: Archived, database: str
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await archived.delete_stream()
    await archived.declare()
    log = archived.whole_log
    decoding = Decoding(Subjects(archived.stream.lower()))
    projector = Projector(
        database,
        log,
        GenerationModel(),
        decoding,
        timing=QUICK,
        whole=log.see_that_it_is_whole,
    )
    async with projector.running():
        await until_state(projector, ProjectorState.REFUSING)
        assert "its archive at 20" in str(await projector.other_log())
        with pytest.raises(LogUnavailable, match="until a person has looked"):
            await RecognisedLog(log, projector.other_log).load("generation", "new")


async def test_a_running_projector_notices_that_the_beginning_is_lost_and_goes_on_when_it_is_found(
    archived: Archived, env: dict[str, str], database: str
) -> None:
    await archived.fill(1, 20)
    await archived.catch_up()
    await archived.trim()
    log = archived.whole_log
    projector = Projector(
        database,
        log,
        GenerationModel(),
        Decoding(Subjects(archived.stream.lower())),
        timing=replace(QUICK, look_again_s=0.1),
        whole=log.see_that_it_is_whole,
    )
    async with projector.running():
        await until_state(projector, ProjectorState.PROJECTING)
        await index_lost(archived)
        await until_state(projector, ProjectorState.REFUSING)
        assert "velro restore" in str(await projector.other_log())
        assert (await velro(env, "restore"))[0] == 0
        await until_state(projector, ProjectorState.PROJECTING)


async def test_a_bucket_that_is_away_says_nothing_against_a_log(archived: Archived) -> None:
    await archived.fill(1, 3)
    log = ArchivedLog(archived.log, BucketAway(), trimmed=archived.index, from_archive=False)
    await log.see_that_it_is_whole()
