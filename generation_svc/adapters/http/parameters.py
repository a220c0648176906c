"""Parameters that several routes take, with their limits."""

from typing import Annotated

from fastapi import Path, Query

from generation_svc.adapters.http.limits import DEFAULT_WAIT_S, MAX_POSITION, MAX_WAIT_S
from shared.contracts.facts import GenerationId as ContractGenerationId

GenerationId = Annotated[ContractGenerationId, Path(description="The generation's id.")]

AtLeast = Annotated[
    int | None,
    Query(
        ge=0,
        le=MAX_POSITION,
        description="Answer only once the read model holds the log up to this position.",
    ),
]

WaitS = Annotated[
    float,
    Query(
        ge=0,
        le=MAX_WAIT_S,
        allow_inf_nan=False,
        description="How many seconds to wait for `at_least`.",
    ),
]

__all__ = ["DEFAULT_WAIT_S", "AtLeast", "GenerationId", "WaitS"]
