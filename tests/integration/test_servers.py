"""The servers that every other test stands on are real, separate, and keep what they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

from shared.messaging.connection import connect
from shared.messaging.jetstream import ensure_stream, jetstream_of
from velro.stack.seaweedfs import s3_client

if TYPE_CHECKING:
    from tests.servers.port import OwnNats, OwnPostgres, OwnS3
    from velro.stack.seaweedfs import S3Address

from nats.js.api import StreamConfig


async def test_an_acknowledged_message_survives_the_kill_of_nats(own_nats: OwnNats) -> None:
    connection = await connect(own_nats.url, name="test")
    jetstream = jetstream_of(connection)
    await ensure_stream(jetstream, StreamConfig(name="KEPT", subjects=["kept"]))
    await jetstream.publish("kept", b"word")
    await connection.close()

    own_nats.server.kill()
    own_nats.server.start()

    connection = await connect(own_nats.url, name="test")
    message = await jetstream_of(connection).get_last_msg("KEPT", "kept")
    assert message.data == b"word"
    await connection.close()


async def test_a_committed_row_survives_the_kill_of_postgres(own_postgres: OwnPostgres) -> None:
    connection = await asyncpg.connect(own_postgres.dsn)
    await connection.execute("create table kept (word text)")
    await connection.execute("insert into kept values ('word')")
    await connection.close()

    own_postgres.server.kill()
    own_postgres.server.start()

    connection = await asyncpg.connect(own_postgres.dsn)
    assert await connection.fetchval("select word from kept") == "word"
    await connection.close()


def test_an_object_survives_a_restart_of_s3(own_s3: OwnS3) -> None:
    client = s3_client(own_s3.address)
    client.put_object(Bucket=own_s3.address.bucket, Key="kept", Body=b"word")

    own_s3.server.stop()
    own_s3.server.start()

    found = client.get_object(Bucket=own_s3.address.bucket, Key="kept")
    assert found["Body"].read() == b"word"
    client.close()


async def test_every_test_has_a_database_and_a_bucket_of_its_own(
    database: str, bucket: S3Address
) -> None:
    connection = await asyncpg.connect(database)
    assert (
        await connection.fetchval("select count(*) from pg_tables where schemaname='public'") == 0
    )
    await connection.close()
    client = s3_client(bucket)
    assert client.list_objects_v2(Bucket=bucket.bucket)["KeyCount"] == 0
    client.close()
