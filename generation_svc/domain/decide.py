"""Which events a command makes of a state. The whole policy of a generation is this table."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from generation_svc.domain.commands import (
    AnswerLinks,
    Cancel,
    Command,
    Complete,
    Fail,
    RecordSourcesDeleted,
    RecordSubmitted,
    RefuseLinks,
    Request,
    StartSubmission,
)
from generation_svc.domain.state import (
    Absent,
    Done,
    Requested,
    Running,
    State,
    Submitting,
    is_unwanted,
)
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)
from shared.errors import Refused

if TYPE_CHECKING:
    from shared.contracts.generation_events import GenerationEvent


# What the contract takes of a sentence. Much of it is said by others, at any length.
_MAX_DETAIL = 2000


class IdempotencyKeyReused(Refused):
    """The key was used for another request: send the first request again, or a new key."""


class AlreadyFinished(Refused):
    """The generation is completed or failed and cannot be cancelled any more."""


class UnknownGeneration(Refused):
    """Nobody asked for a generation with this id."""


# One table, read from top to bottom: split up, nobody could see that it covers everything.
def decide(command: Command, state: State) -> list[GenerationEvent]:  # noqa: C901, PLR0911, PLR0912
    """What happened, given what was asked. An empty list: nothing new.

    Raises:
        IdempotencyKeyReused: another request under the same id.
        AlreadyFinished: cancelling what is completed or failed.
        UnknownGeneration: anything but a request for an id without events.
    """
    match command, state:
        case Request(), Absent():
            return [_requested(command)]
        case Request(), Requested() | Submitting() | Running() | Done():
            if state.request != _requested(command):
                raise IdempotencyKeyReused(
                    "this Idempotency-Key belongs to a request with another body; "
                    "send that body again, or this one with a new key"
                )
            return []

        case _, Absent():
            raise UnknownGeneration("there is no generation with this id")

        case StartSubmission(attempt=1), Requested():
            return [_started(command)]
        case StartSubmission(attempt=attempt), Submitting() if attempt == state.attempt + 1:
            return [_started(command)]
        case StartSubmission(), Requested() | Submitting() | Running() | Done():
            return []  # somebody else announced it: the call is theirs to make

        case RecordSubmitted(attempt=attempt), Submitting() if attempt == state.attempt:
            return [_submitted(command)]
        case RecordSubmitted(), Done(submitted=None) if is_unwanted(command.request_id, state):
            return [_submitted(command)]  # after the end: so that it can be stopped
        case RecordSubmitted(), Requested() | Submitting() | Running() | Done():
            return []  # a later attempt is under way, or the webhook was faster

        case Complete(), (
            Requested(request=request) | Submitting(request=request) | Running(request=request)
        ):
            return _completed(command, request)
        case Complete(), Done(request=GenerationRequested() as request, open_since=datetime()):
            return _completed(command, request)  # media that exists outweighs having given up
        case Complete(), Done():
            return []  # the webhook and the poll both report; the second changes nothing

        case Fail(request_id=failed), Running() if failed != state.submitted.request_id:
            return []  # another paid call came to nothing; the one that counts is running
        case Fail(), Requested() | Submitting() | Running():
            return [
                GenerationFailed(
                    code=command.code,
                    detail=command.detail[:_MAX_DETAIL],
                    retryable=command.retryable,
                    billed=command.billed,
                    given_up=True if command.given_up else None,
                )
            ]
        case Fail(), Done():
            return []

        case ((AnswerLinks() | RefuseLinks()), Done(outcome=GenerationCompleted())):
            return [] if command.request in state.answered else [_links(command)]
        case RecordSourcesDeleted(), Done(outcome=GenerationCompleted()):
            return [] if state.sources_deleted else [SourcesDeleted()]
        case (
            (AnswerLinks() | RefuseLinks() | RecordSourcesDeleted()),
            Requested() | Submitting() | Running() | Done(),
        ):
            return []  # there is no media to speak of

        case Cancel(), Requested() | Submitting() | Running():
            return [GenerationCancelled(reason=command.reason[:_MAX_DETAIL])]
        case Cancel(), Done(outcome=GenerationCancelled()):
            return []
        case Cancel(), Done():
            raise AlreadyFinished("the generation is finished and cannot be cancelled any more")


def _requested(command: Request) -> GenerationRequested:
    return GenerationRequested(
        user_id=command.user_id,
        provider=command.provider,
        model=command.model,
        input=dict(command.input),
        idempotency_key=command.idempotency_key,
        metadata=dict(command.metadata),
    )


def _started(command: StartSubmission) -> SubmissionStarted:
    return SubmissionStarted(
        attempt=command.attempt, claim=command.claim, not_taken=command.not_taken or None
    )


def _links(command: AnswerLinks | RefuseLinks) -> LinksRenewed | LinksNotRenewed:
    match command:
        case AnswerLinks(request=request, links=links):
            return LinksRenewed(request=request, links=links)
        case RefuseLinks(request=request, detail=detail):
            return LinksNotRenewed(request=request, detail=detail[:_MAX_DETAIL])


def _submitted(command: RecordSubmitted) -> GenerationSubmitted:
    return GenerationSubmitted(
        attempt=command.attempt,
        request_id=command.request_id,
        status_url=command.status_url,
        response_url=command.response_url,
        cancel_url=command.cancel_url,
    )


def _completed(command: Complete, request: GenerationRequested) -> list[GenerationEvent]:
    completed = GenerationCompleted(
        user_id=request.user_id,
        provider=request.provider,
        model=request.model,
        request_id=command.request_id,
        outputs=command.outputs,
    )
    if not command.failures:
        return [completed]
    return [completed, StorageFailed(failures=command.failures)]
