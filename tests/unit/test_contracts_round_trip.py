"""Whatever event can be made can be written and read back, the same to the last field."""

from __future__ import annotations

from datetime import UTC, datetime, timezone
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.codec import Codec, encode
from shared.contracts.envelope import Context, seal
from shared.contracts.facts import Output, OutputFailure, StoredObject
from shared.contracts.generation_events import (
    GenerationCancelled,
    GenerationCompleted,
    GenerationFailed,
    GenerationRequested,
    GenerationSubmitted,
    LinksNotRenewed,
    LinksRenewed,
    RenewedLink,
    SourcesDeleted,
    StorageFailed,
    SubmissionStarted,
)
from shared.contracts.reasons import ReasonCode
from shared.contracts.storage_events import (
    MediaLost,
    MediaStored,
    MigrationAttemptFailed,
    MigrationCompleted,
    ObjectLost,
    QuarantineRejected,
    QuarantineReleased,
    RefetchRequested,
)
from shared.contracts.subjects import Subjects

if TYPE_CHECKING:
    from shared.contracts.events import AnyEvent

texts = st.text(st.characters(codec="utf-8"), max_size=50)
words = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-", min_size=1)
tokens = words.map(lambda word: word[:64])
sizes = st.integers(min_value=0, max_value=2**63)
numbers = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
attempts = st.integers(min_value=1, max_value=10**6)
indices = st.integers(min_value=0, max_value=999)
reasons = st.sampled_from(ReasonCode)


def at_its_offset(moment: datetime) -> datetime:
    """Without the rules of its zone: in the hour that a zone has twice, nothing equals anything."""
    offset = moment.utcoffset()
    assert offset is not None
    return moment.replace(tzinfo=timezone(offset))


moments = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - Hypothesis wants bounds without a zone
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001 - the same
    timezones=st.one_of(st.just(UTC), st.timezones()),
).map(at_its_offset)
json_objects = st.dictionaries(
    texts,
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | texts
        | st.floats(allow_nan=False).filter(lambda number: abs(number) != float("inf")),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=10,
    ),
    max_size=4,
)
maybe_size = st.none() | st.integers(min_value=0, max_value=10**6)
objects = st.builds(
    StoredObject,
    bucket=texts,
    key=texts,
    size_bytes=sizes,
    sha256=st.text("0123456789abcdef", min_size=64, max_size=64),
    media_type=texts,
    width=maybe_size,
    height=maybe_size,
    duration_s=st.none() | numbers,
)
outputs = st.lists(
    st.tuples(texts, moments, st.none() | texts, maybe_size, st.none() | objects),
    min_size=1,
    max_size=5,
).map(
    lambda rows: tuple(
        Output(
            index=index,
            source_url=url,
            expires_at=at,
            media_type=media_type,
            width=width,
            height=width,
            stored=stored,
        )
        for index, (url, at, media_type, width, stored) in enumerate(rows)
    )
)
failures = st.lists(
    st.builds(OutputFailure, index=indices, reason=reasons, detail=texts), min_size=1, max_size=5
).map(tuple)

events: st.SearchStrategy[AnyEvent] = st.one_of(
    st.builds(
        GenerationRequested,
        user_id=words.map(lambda word: word[:128]),
        provider=texts,
        model=texts,
        input=json_objects,
        idempotency_key=st.none() | texts,
        metadata=json_objects,
    ),
    st.builds(SubmissionStarted, attempt=attempts, claim=texts),
    st.builds(
        GenerationSubmitted,
        attempt=attempts,
        request_id=texts,
        status_url=texts,
        response_url=texts,
        cancel_url=texts,
    ),
    st.builds(
        GenerationCompleted,
        user_id=words.map(lambda word: word[:128]),
        provider=texts,
        model=texts,
        request_id=st.none() | texts,
        outputs=outputs,
    ),
    st.builds(StorageFailed, failures=failures),
    st.builds(
        GenerationFailed,
        code=texts,
        detail=texts,
        retryable=st.booleans(),
        billed=st.none() | st.booleans(),
    ),
    st.builds(GenerationCancelled, reason=texts),
    st.builds(
        MediaStored,
        index=indices,
        attempt=attempts,
        object=objects,
        took_s=numbers,
        again=st.none() | attempts.map(lambda number: number + 1),
    ),
    st.builds(
        MigrationAttemptFailed,
        index=indices,
        attempt=attempts,
        reason=reasons,
        detail=texts,
        retry_at=moments,
    ),
    st.builds(MigrationCompleted, file_count=attempts, total_size_bytes=sizes),
    st.builds(
        MediaLost,
        index=indices,
        attempt=attempts,
        reason=reasons,
        detail=texts,
        media_type=st.none() | texts,
        link=st.none() | attempts,
        loss=st.none() | attempts.map(lambda number: number + 1),
    ),
    st.builds(
        ObjectLost,
        index=indices,
        object_key=texts,
        loss=attempts,
        reason=reasons,
        detail=texts,
    ),
    st.builds(QuarantineReleased, index=indices, attempt=attempts),
    st.builds(QuarantineRejected, index=indices, attempt=attempts, detail=texts),
    st.builds(
        RefetchRequested,
        request=attempts,
        indexes=st.lists(indices, min_size=1, max_size=5).map(tuple),
        answer_by=moments,
    ),
    st.builds(
        LinksRenewed,
        request=attempts,
        links=st.lists(
            st.builds(RenewedLink, index=indices, source_url=texts, expires_at=moments),
            min_size=1,
            max_size=5,
        ).map(tuple),
    ),
    st.builds(LinksNotRenewed, request=attempts, detail=texts),
    st.builds(SourcesDeleted, detail=texts),
)
contexts = st.builds(
    Context,
    source=tokens,
    correlation_id=st.none() | texts,
    causation_id=st.none() | texts,
    traceparent=st.none() | texts,
)


@given(event=events, generation_id=tokens, at=moments, context=contexts)
def test_an_event_is_read_back_as_it_was_written(
    event: AnyEvent, generation_id: str, at: datetime, context: Context
) -> None:
    envelope = seal(event, generation_id=generation_id, at=at, context=context)
    written = encode(envelope)
    assert Codec().decode(written) == envelope
    assert encode(Codec().decode(written)) == written


@given(event=events, generation_id=tokens)
def test_an_aggregate_is_found_again_by_its_subject(event: AnyEvent, generation_id: str) -> None:
    subjects = Subjects("velro.eu")
    assert subjects.generation_id(subjects.of(event.family, generation_id)) == generation_id
