"""For whoever watches the process, and for whoever wonders what an answer meant."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Path, Response

from generation_svc.adapters.http.models import AliveAnswer, PartAnswer, ProblemKind, ReadyAnswer
from generation_svc.adapters.http.openapi import answers
from generation_svc.adapters.http.ports import Readiness
from generation_svc.adapters.http.problems import PROBLEMS, InvalidRequest, UnknownKind

_READINESS_TIMEOUT_S: Final = 5.0
_KINDS: Final = {kind.name: kind for kind in PROBLEMS}


def health_router(readiness: Readiness) -> APIRouter:
    """`/healthz`, `/readyz` and the words for problems."""

    async def alive() -> AliveAnswer:
        """The process answers. Whether it can work is another question: see `/readyz`."""
        return AliveAnswer()

    async def ready(response: Response) -> ReadyAnswer:
        """Each part of the service, and what is wrong with it."""
        try:
            async with asyncio.timeout(_READINESS_TIMEOUT_S):
                problems = dict(await readiness())
        except TimeoutError:
            problems: dict[str, str | None] = {
                "readiness": f"no part answered within {_READINESS_TIMEOUT_S:g} s"
            }
        failing = any(problems.values())
        response.status_code = 503 if failing else 200
        return ReadyAnswer(
            status="failing" if failing else "ok",
            parts={
                name: PartAnswer(ready=not problem, problem=problem)
                for name, problem in problems.items()
            },
        )

    async def explain(name: Annotated[str, Path(pattern=r"^[a-z-]{1,64}$")]) -> ProblemKind:
        """What the `type` of a problem means."""
        kind = _KINDS.get(name)
        if kind is None:
            raise UnknownKind(f"no problem is named {name}")
        return ProblemKind(name=name, title=kind.summary, status=kind.code, meaning=kind.meaning)

    router = APIRouter(tags=["operations"])
    router.add_api_route("/healthz", alive, methods=["GET"])
    router.add_api_route(
        "/readyz",
        ready,
        methods=["GET"],
        responses={503: {"model": ReadyAnswer, "description": "Some part is not ready."}},
    )
    router.add_api_route(
        "/problems/{name}", explain, methods=["GET"], responses=answers(InvalidRequest, UnknownKind)
    )
    return router
