"""Damage the bucket in every way, and find exactly that."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from shared.contracts.envelope import Context, seal
from shared.contracts.storage_events import MediaStored
from shared.object_store.keys import object_key
from shared.object_store.s3 import s3_object_store
from tests.object_stores import settings_for
from tests.verifying import Three, now, said, three

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from shared.contracts.facts import StoredObject
    from shared.contracts.subjects import Subjects
    from velro.stack.seaweedfs import S3Address


@pytest.fixture
async def world(
    nats_url: str, stream: str, subjects: Subjects, database: str, bucket: S3Address
) -> AsyncGenerator[Three]:
    async with three(
        nats_url=nats_url, stream=stream, subjects=subjects, database=database, bucket=bucket
    ) as world:
        yield world


@pytest.fixture
async def objects(world: Three) -> list[StoredObject]:
    """Three outputs of two generations, all stored."""
    found = [*await world.stored("one", outputs=2), *await world.stored("two", at_once=False)]
    await world.projected()
    return found


async def test_objects_as_the_log_says_have_no_findings(
    world: Three, objects: list[StoredObject]
) -> None:
    report = await world.verified()
    assert said(report) == []
    assert report.objects == len(objects)
    assert report.read_deep == 0


async def test_read_to_the_last_byte_they_have_none_either(
    world: Three, objects: list[StoredObject]
) -> None:
    report = await world.verified(deep=True)
    assert said(report) == []
    assert report.read_deep == len(objects)


async def test_a_deleted_object_is_missing(world: Three, objects: list[StoredObject]) -> None:
    await world.delete(objects[1])
    report = await world.verified()
    assert said(report) == [("object_missing", "one", objects[1].key)]
    assert report.findings[0].output_index == 1


async def test_a_truncated_object_differs(world: Three, objects: list[StoredObject]) -> None:
    await world.put(objects[0], world.bodies["one", 0][:-1])
    report = await world.verified()
    assert said(report) == [("object_differs", "one", objects[0].key)]
    assert f"instead of {objects[0].size_bytes:,}" in report.findings[0].detail


async def test_an_object_that_grew_differs(world: Three, objects: list[StoredObject]) -> None:
    await world.put(objects[2], world.bodies["two", 0] + b"more")
    assert said(await world.verified()) == [("object_differs", "two", objects[2].key)]


async def altered(world: Three, stored: StoredObject, **other: str) -> None:
    """The same size and the same metadata, with one bit turned."""
    body = world.bodies[stored.key.split("/")[1], int(stored.key.rpartition("/")[2][0])]
    await world.put(stored, body[:-1] + bytes([body[-1] ^ 1]), **other)


async def test_altered_bytes_of_the_same_size_are_found_by_reading_them(
    world: Three, objects: list[StoredObject]
) -> None:
    await altered(world, objects[0])
    assert said(await world.verified()) == []
    report = await world.verified(deep=True)
    assert said(report) == [("object_differs", "one", objects[0].key)]
    assert "the hash of its bytes" in report.findings[0].detail


async def test_an_object_that_is_served_as_another_type_is_found_by_reading_it(
    world: Three, objects: list[StoredObject]
) -> None:
    await world.put(objects[0], world.bodies["one", 0], ContentType="text/html")
    report = await world.verified(deep=True)
    assert said(report) == [("object_differs", "one", objects[0].key)]
    assert "served as text/html instead of image/png" in report.findings[0].detail


async def long_ago(world: Three, generation_id: str) -> StoredObject:
    """An output that was stored, as the log says, two hours ago."""
    stored = world.object_of(generation_id, 0)
    await world.requested(generation_id)
    completed = world.completion(generation_id, [stored], at_once=False)
    for event in (
        completed,
        MediaStored(index=0, attempt=1, object=stored, took_s=1.0),
    ):
        envelope = seal(
            event,
            generation_id=generation_id,
            at=now() - timedelta(hours=2),
            context=Context(source="tests"),
        )
        await world.log.append(event.family, generation_id, [envelope], expected=None)
    return stored


async def test_one_that_was_replaced_long_after_it_was_stored_is_asked_for_its_hash(
    world: Three,
) -> None:
    replaced = await long_ago(world, "replaced")
    other = world.bodies["replaced", 0][:-1] + b"x"
    await world.put(replaced, other, Metadata={"sha256": hashlib.sha256(other).hexdigest()})
    assert len(other) == replaced.size_bytes
    await world.projected()
    report = await world.verified()
    assert said(report) == [("object_differs", "replaced", replaced.key)]
    assert "its hash is said to be" in report.findings[0].detail


async def test_one_that_was_replaced_by_somebody_who_writes_no_hash_is_read(world: Three) -> None:
    replaced = await long_ago(world, "replaced")
    same = await long_ago(world, "same")
    await world.put(replaced, world.bodies["replaced", 0][:-1] + b"x", Metadata={})
    await world.put(same, world.bodies["same", 0], Metadata={})
    await world.projected()
    report = await world.verified()
    assert said(report) == [("object_differs", "replaced", replaced.key)]
    assert report.read_deep == 2


async def test_objects_that_no_event_speaks_of_are_orphans(
    world: Three, objects: list[StoredObject]
) -> None:
    of_nobody = replace_key(objects[0], object_key("bob", "nobody", 0, "ab" * 32, "png"))
    of_one = replace_key(objects[0], object_key("ann", "one", 5, "cd" * 32, "png"))
    odd = replace_key(objects[0], "ann/a name with * and ü/0-0123456789abcdef.png")
    for orphan in (of_nobody, of_one, odd):
        await world.put(orphan, b"left behind")
    report = await world.verified()
    assert said(report) == [
        ("object_orphaned", odd.key),
        ("object_orphaned", of_nobody.key),
        ("object_orphaned", "one", of_one.key),
    ]


def replace_key(stored: StoredObject, key: str) -> StoredObject:
    return stored.model_copy(update={"key": key})


async def test_a_young_object_may_be_one_whose_event_is_being_written(
    world: Three, objects: list[StoredObject]
) -> None:
    young = replace_key(objects[0], object_key("ann", "one", 5, "cd" * 32, "png"))
    await world.put(young, b"just put")
    report = await world.verified(grace_s=3600.0)
    assert said(report) == []
    assert report.young == 1
    assert report.exit_code == 0


async def test_an_object_stored_after_the_rows_is_no_orphan(
    world: Three, objects: list[StoredObject]
) -> None:
    await world.stored("later")
    report = await world.verified()
    assert said(report) == []
    assert report.objects == len(objects) + 1


async def test_what_others_keep_in_the_bucket_is_counted_and_left_alone(
    world: Three, objects: list[StoredObject]
) -> None:
    await world.put(replace_key(objects[0], "reports/2026.csv"), b"a,b")
    await world.put(replace_key(objects[0], "velro-probe/ab/0-0123456789abcdef.png"), b"x")
    report = await world.verified()
    assert said(report) == []
    assert report.foreign == 1


@pytest.mark.usefixtures("objects")
async def test_what_a_probe_leaves_is_nothing_to_verify(world: Three) -> None:
    async with s3_object_store(settings_for(world.bucket)) as store:
        await store.learn()
    assert said(await world.verified()) == []


@pytest.mark.usefixtures("objects")
async def test_a_bucket_that_events_name_and_nobody_can_read_is_said_to_be_unread(
    world: Three,
) -> None:
    elsewhere = world.object_of("moved", 0).model_copy(
        update={"bucket": f"t{secrets.token_hex(6)}"}
    )
    await world.requested("moved")
    await world.say("moved", world.completion("moved", [elsewhere], at_once=True))
    await world.projected()
    report = await world.verified()
    assert said(report) == []
    (unread,) = report.unreadable
    assert (unread.bucket, unread.outputs) == (elsewhere.bucket, 1)
    assert f"there is no bucket {elsewhere.bucket}" in unread.why
    assert report.exit_code == 4


@pytest.mark.usefixtures("objects")
async def test_an_older_bucket_of_the_same_service_is_read_too(world: Three) -> None:
    older = f"t{secrets.token_hex(6)}"
    await world.s3.plain.create_bucket(Bucket=older)
    stored, missing = (
        world.object_of("moved", index).model_copy(update={"bucket": older}) for index in (0, 1)
    )
    await world.put(stored, world.bodies["moved", 0])
    await world.requested("moved")
    await world.say("moved", world.completion("moved", [stored, missing], at_once=True))
    await world.projected()
    report = await world.verified()
    assert said(report) == [("object_missing", "moved", missing.key)]
    assert report.unreadable == []
    await world.delete(stored)
    await world.s3.plain.delete_bucket(Bucket=older)


async def test_a_bucket_that_refuses_us_is_not_an_empty_one(
    world: Three, objects: list[StoredObject]
) -> None:
    assert world.places.bucket is not None
    refused = settings_for(replace(world.bucket, secret_key="another"))
    world.places = replace(world.places, bucket=refused)
    report = await world.verified()
    assert said(report) == []
    assert [each.outputs for each in report.unreadable] == [len(objects)]
    assert report.exit_code == 4


async def test_one_generation_is_verified_with_its_folder_alone(
    world: Three, objects: list[StoredObject]
) -> None:
    await world.delete(objects[0])
    await world.delete(objects[2])
    orphan = replace_key(objects[0], object_key("ann", "two", 5, "cd" * 32, "png"))
    await world.put(orphan, b"left behind")
    report = await world.verified(only=("two",))
    assert said(report) == [
        ("object_missing", "two", objects[2].key),
        ("object_orphaned", "two", orphan.key),
    ]


async def test_without_a_bucket_the_rows_alone_are_compared(
    world: Three, objects: list[StoredObject]
) -> None:
    await world.delete(objects[0])
    world.places = replace(world.places, bucket=None)
    report = await world.verified()
    assert said(report) == []
    assert report.objects == 0
