"""One row of another application: what may be in it, and why one cannot be imported."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final, Self, cast

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from yarl import URL

from shared.contracts.facts import GenerationId, JsonObject, UserId
from shared.settings import UnsetWhenEmpty

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

FLAGS: Final = ("storage_retry_needed", "fal_urls_temporary", "requires_background_migration")
_MAX_URL_CHARS: Final = 8192


def _aware(value: object) -> object:
    """Times without a zone are UTC, as in most databases; texts may be ISO 8601."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(
                f"{value[:100]!r} is no ISO 8601, as 2026-05-04T03:02:01Z is"
            ) from None
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _urls(value: object) -> object:
    """A list, a list as JSON, or a text of URLs between spaces or bars."""
    if isinstance(value, str):
        text = value.strip()
        return json.loads(text) if text.startswith("[") else text.replace("|", " ").split()
    return value


def _object(value: object) -> object:
    if isinstance(value, str):
        return json.loads(value) if value.strip() else {}
    return {} if value is None else value


def _link(text: str) -> str:
    if len(text) > _MAX_URL_CHARS:
        raise ValueError(f"a URL of more than {_MAX_URL_CHARS:,} characters")
    url = URL(text)
    if url.scheme not in {"http", "https"} or not url.host:
        raise ValueError(f"{text[:100]!r} is no http or https URL")
    return text


Moment = Annotated[AwareDatetime, BeforeValidator(_aware)]
Link = Annotated[str, AfterValidator(_link)]
Flag = Annotated[bool | None, UnsetWhenEmpty]
_FLAG: Final = TypeAdapter[bool | None](Flag)


def _flag(value: JsonValue) -> bool | None:
    """What a flag in the metadata says; what cannot be read says that the media is not safe."""
    try:
        return _FLAG.validate_python(value)
    except ValidationError:
        return True


class Row(BaseModel):
    """One row of another application: a finished generation whose links die.

    Attributes:
        user: whose it is.
        created_at: when it was made; without a zone it is UTC.
        output_urls: a list, a list as JSON, or URLs between spaces or bars.
        metadata: with the legacy flags; what else is in it stays with the generation.
        expires_at: when the links die; without it, so long after `created_at` as was asked for.
    """

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)

    id: GenerationId
    user: UserId
    created_at: Moment
    output_urls: Annotated[
        tuple[Link, ...], BeforeValidator(_urls), Field(min_length=1, max_length=1000)
    ]
    metadata: Annotated[JsonObject, BeforeValidator(_object)] = Field(
        default_factory=dict[str, JsonValue]
    )
    provider: Annotated[str | None, UnsetWhenEmpty] = None
    model: Annotated[str | None, UnsetWhenEmpty] = None
    expires_at: Annotated[Moment | None, UnsetWhenEmpty] = None
    storage_retry_needed: Flag = None
    fal_urls_temporary: Flag = None
    requires_background_migration: Flag = None

    @model_validator(mode="after")
    def _dies_after_it_was_made(self) -> Self:
        if self.expires_at is not None and self.expires_at < self.created_at:
            raise ValueError("expires_at is before created_at")
        return self

    @property
    def needs_storing(self) -> bool:
        """Whether a flag says so, in a column of its own or in the metadata; or none is there."""
        flags = [cast("bool | None", getattr(self, name)) for name in FLAGS]
        flags += [_flag(self.metadata[name]) for name in FLAGS if name in self.metadata]
        known = [flag for flag in flags if flag is not None]
        return any(known) or not known


@dataclass(frozen=True, slots=True)
class Found:
    """A row as its source gave it.

    Attributes:
        number: its place in the source, from 1.
        values: by column; None where not even that could be read.
        unreadable: why not.
    """

    number: int
    values: Mapping[str, Any] | None
    unreadable: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that is not imported, and why."""

    number: int
    reason: str
    values: Mapping[str, Any] | None


def why(error: ValidationError) -> str:
    """What is wrong with a row, and what it should be."""
    return "; ".join(
        f"{'.'.join(str(part) for part in problem['loc']) or 'row'}: {_said(problem)}"
        for problem in error.errors(include_url=False, include_input=False)
    )


def _said(problem: ErrorDetails) -> str:
    match problem["loc"], problem["type"]:
        case (str(column), *_), "missing":
            return f"no such column; --map {column}=THEIRS names another"
        case ("id", *_), "string_pattern_mismatch":
            return "it should be 1 to 64 letters, digits, - and _"
        case ("user", *_), "string_pattern_mismatch" | "string_too_short":
            return "it should be 1 to 128 letters, digits and _ @ . + -"
        case ("output_urls",), "too_short":
            return "there is none"
        case _, "value_error":
            return str(problem["ctx"]["error"]) if "ctx" in problem else problem["msg"]
        case _:
            return problem["msg"]
