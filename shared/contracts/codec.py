"""Envelopes to bytes and back; old versions are lifted to the current one while being read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Union, cast

from pydantic import Discriminator, TypeAdapter, ValidationError

from shared.contracts.envelope import ENVELOPES, UNKNOWN_ENVELOPE, Envelope
from shared.errors import Refused, in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Undecodable(Refused):
    """The bytes are not an event: they break the envelope or the contract of their type."""


@dataclass(frozen=True, slots=True)
class Upcast:
    """How the data of one retired type becomes the data of the next version."""

    to_type: str
    lift: Callable[[dict[str, Any]], dict[str, Any]]


# By retired type. Empty: every type is at its first version.
UPCASTERS: Mapping[str, Upcast] = {}

# The union is made when the program starts, from the list of types, so no checker can read it.
_of_any_type: Any = Annotated[
    Union[tuple(ENVELOPES.values())],  # noqa: UP007 - `|` cannot be made from a list
    Discriminator("type"),
]
_CURRENT: TypeAdapter[Envelope] = TypeAdapter(_of_any_type)
_CURRENT_TYPES = frozenset(event_type.type for event_type in ENVELOPES)


def encode(envelope: Envelope) -> bytes:
    """The envelope as it stands in the log."""
    # As `model_dump_json`, without the way from bytes to a string and back: 2 of 5 us.
    return envelope.__pydantic_serializer__.to_json(envelope, exclude_none=True)


class Codec:
    """Reads events of any version ever written."""

    def __init__(self, upcasters: Mapping[str, Upcast] = UPCASTERS) -> None:
        for retired in upcasters:
            passed = [retired]
            while passed[-1] in upcasters and len(passed) <= len(upcasters):
                passed.append(upcasters[passed[-1]].to_type)
            if passed[-1] not in _CURRENT_TYPES:
                raise ValueError(f"upcasters end in no current type: {' to '.join(passed)}")
        self._upcasters = upcasters

    def decode(self, data: bytes) -> Envelope:
        """Read one envelope, tolerating fields that a newer writer added.

        A type this version does not know is no error: its data is an `UnknownEvent`.

        Raises:
            Undecodable: not an envelope, or not what its type promises.
        """
        try:
            return _CURRENT.validate_json(data, extra="ignore")
        except ValidationError as error:
            if (
                error.errors(include_url=False, include_input=False)[0]["type"]
                != "union_tag_invalid"
            ):
                raise Undecodable(_sentence(error)) from error
        return self._decode_other(data)

    def _decode_other(self, data: bytes) -> Envelope:
        body = cast("dict[str, Any]", json.loads(data))
        try:
            if body["type"] not in self._upcasters:
                unknown = {**body, "data": {"body": body["data"]}}
                return UNKNOWN_ENVELOPE.model_validate_json(json.dumps(unknown), extra="ignore")
            while upcast := self._upcasters.get(body["type"]):
                body["data"] = upcast.lift(body["data"])
                body["type"] = upcast.to_type
            return _CURRENT.validate_json(json.dumps(body), extra="ignore")
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            # ValidationError is a ValueError; the others are what an upcaster meets in data that
            # never had the shape its type promised.
            raise Undecodable(_sentence(error)) from error


def _sentence(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)[:5]
        )
    return in_words(error)
