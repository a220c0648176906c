"""The OpenAPI document: what problems each route answers, and what they look like."""

from __future__ import annotations

from itertools import groupby
from typing import Any, Final

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from generation_svc.adapters.http.middleware import CORRELATION_HEADER
from generation_svc.adapters.http.models import EndOfWatch, InvalidAnswer, ProblemAnswer
from generation_svc.adapters.http.problems import (
    MEDIA_TYPE,
    TYPE_TEMPLATE,
    Defect,
    VelroProblem,
)

Responses = dict[int | str, dict[str, Any]]

_UNPROCESSABLE: Final = 422


def answers(*problems: type[VelroProblem]) -> Responses:
    """How a route documents the problems it answers, by status."""
    by_status = sorted((*problems, Defect), key=lambda problem: problem.code)
    return {
        status: _response(status, list(group))
        for status, group in groupby(by_status, key=lambda problem: problem.code)
    }


def _response(status: int, problems: list[type[VelroProblem]]) -> dict[str, Any]:
    model = InvalidAnswer if status == _UNPROCESSABLE else ProblemAnswer
    return {
        "description": " ".join(f"{problem.summary}: {problem.meaning}" for problem in problems),
        "content": {
            MEDIA_TYPE: {
                "schema": {"$ref": f"#/components/schemas/{model.__name__}"},
                "examples": {
                    problem.name: {"value": problem("…").marshal(uri=TYPE_TEMPLATE)}
                    for problem in problems
                },
            }
        },
    }


# Read by a middleware before any route, so that no route declares it.
_CORRELATION: Final[dict[str, Any]] = {
    "name": CORRELATION_HEADER,
    "in": "header",
    "required": False,
    "description": (
        "The caller's name for the request, a word of at most 128 characters: for the events "
        "that it causes, for log lines, and in the answer. One is made where there is none."
    ),
    "schema": {"type": "string", "maxLength": 128},
}


class DocumentedApp(FastAPI):
    """FastAPI whose document holds what no route declares: a header, and models of problems."""

    def openapi(self) -> dict[str, Any]:
        """The document. FastAPI keeps it; adding the same again changes nothing."""
        document = super().openapi()
        _, made = models_json_schema(
            [(model, "serialization") for model in (ProblemAnswer, InvalidAnswer, EndOfWatch)],
            ref_template="#/components/schemas/{model}",
        )
        document["components"]["schemas"].update(made["$defs"])
        for operations in document["paths"].values():
            for operation in operations.values():
                parameters = operation.setdefault("parameters", [])
                if _CORRELATION not in parameters:
                    parameters.append(_CORRELATION)
        return document
