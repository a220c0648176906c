"""The corners of nats-py that carry no types, typed in one place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js import JetStreamContext
    from nats.js.api import ConsumerConfig, StreamConfig


def jetstream_of(connection: Client) -> JetStreamContext:
    """The JetStream side of a connection."""
    return cast("JetStreamContext", cast("Any", connection).jetstream())


async def ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    """Create a stream; one that is there with these settings is left alone.

    Raises:
        nats.js.errors.BadRequestError: there is one with other settings.
    """
    await cast("Any", jetstream).add_stream(config)


async def ensure_consumer(jetstream: JetStreamContext, stream: str, config: ConsumerConfig) -> None:
    """Create a durable consumer, or give an existing one these settings.

    Raises:
        nats.js.errors.BadRequestError: a setting that cannot be changed differs.
    """
    await cast("Any", jetstream).add_consumer(stream, config)
