"""The kinds of problems (RFC 9457) that the API answers, each with the words that explain it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Final
from urllib.parse import quote

from rfc9457 import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEDIA_TYPE: Final = "application/problem+json"
TYPE_TEMPLATE: Final = "/problems/{type}"


class VelroProblem(Problem):
    """A problem of this API.

    Attributes:
        name: its `type`, for good.
        summary: its `title`, the same in every case.
        code: its `status`.
        meaning: what explains it to a caller.
        answer_headers: what goes with the answer.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    code: ClassVar[int]
    meaning: ClassVar[str]
    answer_headers: ClassVar[Mapping[str, str]] = {}

    def __init__(self, detail: str | None = None, **members: object) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType] - its members have no types
            self.summary,
            type_=self.name,
            detail=detail,
            status=self.code,
            headers=dict(self.answer_headers),
            **members,
        )


class InvalidRequest(VelroProblem):  # noqa: D101 - `meaning` documents it, here and to callers
    name = "invalid-request"
    summary = "The request does not have the form that is documented"
    code = 422
    meaning = "`errors` says what is wrong with what."


class Unreadable(VelroProblem):  # noqa: D101 - as above
    name = "unreadable-body"
    summary = "The body cannot be read"
    code = 400
    meaning = "It is not JSON in UTF-8, or is nested without end."


class NotSentAsJson(VelroProblem):  # noqa: D101 - as above
    name = "unsupported-media-type"
    summary = "The body is not said to be JSON"
    code = 415
    meaning = "Send it with `Content-Type: application/json`."


class TooSlow(VelroProblem):  # noqa: D101 - as above
    name = "too-slow"
    summary = "The body took too long"
    code = 408
    answer_headers: ClassVar[Mapping[str, str]] = {"Connection": "close"}
    meaning = "It did not arrive in time; nothing was accepted."


class UnknownProvider(VelroProblem):  # noqa: D101 - as above
    name = "unknown-provider"
    summary = "There is no such provider"
    code = 422
    meaning = "`providers` lists those that this service is set up for."


class KeyReused(VelroProblem):  # noqa: D101 - as above
    name = "idempotency-key-reused"
    summary = "The Idempotency-Key belongs to another request"
    code = 422
    meaning = "The key was sent before, with another body."


class WillNotDo(VelroProblem):  # noqa: D101 - as above
    name = "refused"
    summary = "The request is refused"
    code = 422
    meaning = "Sending it again will be refused again."


class TooLarge(VelroProblem):  # noqa: D101 - as above
    name = "too-large"
    summary = "The request is too large"
    code = 413
    meaning = "A body, an input or metadata is over its limit; nothing was accepted."


class NotFound(VelroProblem):  # noqa: D101 - as above
    name = "generation-not-found"
    summary = "There is no such generation"
    code = 404
    meaning = "Just requested? Ask with `at_least` and the position that the request answered."


class OutputNotFound(VelroProblem):  # noqa: D101 - as above
    name = "output-not-found"
    summary = "The generation has no such output"
    code = 404
    meaning = "It has fewer outputs, or none yet."


class OutputGone(VelroProblem):  # noqa: D101 - as above
    name = "output-gone"
    summary = "The output is lost"
    code = 410
    meaning = "It was not stored, and the provider's link is dead."


class Finished(VelroProblem):  # noqa: D101 - as above
    name = "already-finished"
    summary = "The generation is finished"
    code = 409
    meaning = "It is completed or failed, so there is nothing to cancel."


class NotACallback(VelroProblem):  # noqa: D101 - as above
    name = "webhook-rejected"
    summary = "The callback is not to be believed"
    code = 401
    # RFC 9110, 11.6.1: a 401 names a challenge.
    answer_headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": "WebhookSignature"}
    meaning = "Its URL was not given out by this service, or its signature, time or form is wrong."


class UnknownKind(VelroProblem):  # noqa: D101 - as above
    name = "unknown-problem"
    summary = "There is no such kind of problem"
    code = 404
    meaning = "No answer of this service has that `type`."


class Later(VelroProblem):  # noqa: D101 - as above
    name = "try-later"
    summary = "Not now"
    code = 503
    answer_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "2"}
    meaning = "The same request may succeed later."


class LogAway(Later):  # noqa: D101 - as above
    name = "log-unavailable"
    summary = "The event log cannot be reached"
    meaning = "Nothing was accepted or changed."


class OutcomeUnknown(Later):  # noqa: D101 - as above
    name = "outcome-unknown"
    summary = "The event log did not answer"
    meaning = (
        "It may have been accepted or not. Repeating is safe for every request that is not a new "
        "generation, and for that one with the same Idempotency-Key."
    )


class ReadModelAway(Later):  # noqa: D101 - as above
    name = "read-model-unavailable"
    summary = "The read model cannot be read"
    meaning = "Generations run on meanwhile."


class ReadModelBehind(Later):  # noqa: D101 - as above
    name = "read-model-behind"
    summary = "The read model is not there yet"
    code = 504
    answer_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}
    meaning = "It did not come to the position that `at_least` names in time."


class TooManyWait(Later):  # noqa: D101 - as above
    name = "too-many-waiting"
    summary = "Too many callers wait already"
    answer_headers: ClassVar[Mapping[str, str]] = {"Retry-After": "5"}
    meaning = "Waiting for positions and watching are bounded."


class Defect(VelroProblem):  # noqa: D101 - as above
    name = "internal-error"
    summary = "The service failed"
    code = 500
    meaning = "A defect, or a log that is not the expected one: the service's own log says more."

    def __init__(self, _detail: str | None = None) -> None:
        # What failed inside is not for callers.
        super().__init__()


PROBLEMS: tuple[type[VelroProblem], ...] = (
    InvalidRequest,
    Unreadable,
    NotSentAsJson,
    TooSlow,
    UnknownProvider,
    KeyReused,
    WillNotDo,
    TooLarge,
    NotFound,
    OutputNotFound,
    OutputGone,
    Finished,
    NotACallback,
    UnknownKind,
    Later,
    LogAway,
    OutcomeUnknown,
    ReadModelAway,
    ReadModelBehind,
    TooManyWait,
    Defect,
)


def invalid(detail: str, *, where: str, name: str) -> InvalidRequest:
    """A problem with one thing: `where` is `body`, `query`, `path` or `header`."""
    return InvalidRequest(errors=[named(where, [name], detail)])


def named(where: str, path: Sequence[object], detail: str) -> dict[str, str]:
    """One thing that is wrong with a request, and where it stands."""
    if where != "body":
        return {"detail": detail, "in": where, "name": "/".join(map(str, path))}
    # A JSON pointer as a URI fragment (RFC 6901, 6): ASCII, whatever the caller's names hold.
    parts = (str(part).replace("~", "~0").replace("/", "~1") for part in path)
    pointer = "".join(f"/{quote(part, safe='~', errors='replace')}" for part in parts)
    return {"detail": detail, "in": "body", "pointer": f"#{pointer}"}
