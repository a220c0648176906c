"""The corners of nats-py that carry no types, typed in one place."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from nats.js.errors import NotFoundError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import ConsumerConfig, StreamConfig


def jetstream_of(connection: Client) -> JetStreamContext:
    """The JetStream side of a connection."""
    return cast("JetStreamContext", cast("Any", connection).jetstream())


async def ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream; one that is there with these settings is left alone.

    One that has fewer replicas gets more. One that has more keeps them.

    Raises:
        nats.js.errors.BadRequestError: there is one with other settings.
    """
    streams = cast("Any", jetstream)
    try:
        found = (await jetstream.stream_info(str(config.name))).config
    except NotFoundError:
        found = config
    if (found.num_replicas or 1) < (config.num_replicas or 1):
        await streams.update_stream(replace(found, num_replicas=config.num_replicas))
    else:
        await streams.add_stream(replace(config, num_replicas=found.num_replicas))


async def ensure_consumer(jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """Create a durable consumer, or give an existing one these settings.

    Raises:
        nats.js.errors.BadRequestError: a setting that cannot be changed differs.
    """
    await cast("Any", jetstream).add_consumer(stream, config)
