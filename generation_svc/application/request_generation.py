"""Accept a generation: once it is in the log, it will be run."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uuid6 import uuid7

if TYPE_CHECKING:
    from generation_svc.application.deciding import Decider
    from generation_svc.domain.commands import Request

# Ids of requests with an idempotency key are made in this namespace (a UUIDv4, made once).
_KEYED = uuid.UUID("5f0c4a57-32d5-4a3e-9b51-7d6a7cb6f3a4")


@dataclass(frozen=True, slots=True)
class Accepted:
    """The request is in the log.

    Attributes:
        position: of its last event, for `at_least`.
        repeated: the same request was there before; nothing was added.
    """

    generation_id: str
    position: int
    repeated: bool


def generation_id_for(request: Request) -> str:
    """The id: made from user and key where there is a key, so that two replicas that are sent the
    same request at once write to one aggregate, and the log lets one of them through.
    """  # noqa: D205 - one sentence, longer than a line
    if request.idempotency_key is None:
        return str(uuid7())
    name = hashlib.sha256(f"{request.user_id}\0{request.idempotency_key}".encode()).hexdigest()
    return str(uuid.uuid5(_KEYED, name))


async def request_generation(
    request: Request,
    *,
    decider: Decider,
    correlation_id: str | None = None,
    traceparent: str | None = None,
) -> Accepted:
    """Write GenerationRequested, or find that it is there already.

    Raises:
        IdempotencyKeyReused: the key belongs to a request with another body.
        TryLater: the log could not be written; nothing was accepted.
    """
    generation_id = generation_id_for(request)
    decided = await decider.handle(
        generation_id, request, correlation_id=correlation_id, traceparent=traceparent
    )
    return Accepted(generation_id, decided.position, repeated=not decided.new)
