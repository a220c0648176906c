"""The stream that holds the log: how it is made, and what it must never be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

import structlog

from shared.contracts.subjects import Subjects
from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, NoAnswer, ask
from shared.event_log.port import LogMismatch, LogUnavailable

if TYPE_CHECKING:
    from nats.aio.client import Client

    from shared.settings import LogSettings

_log = structlog.get_logger(__name__)

_NANOSECONDS: Final = 1_000_000_000

# What the server leaves out of its answer when it is not set.
_ABSENT: Final[dict[str, object]] = {
    "compression": "none",
    "persist_mode": "default",
    "mirror": None,
    "sources": None,
    "subject_transform": None,
}


@dataclass(frozen=True, slots=True)
class StreamDeclaration:
    """What the log's stream is like. Whatever is not named here is the server's default.

    Attributes:
        replicas: 1 on one server, 3 in a cluster.
        duplicate_window_s: how long the server remembers ids of events, in memory.
        max_bytes: -1 for no limit. A full log refuses new events and keeps the old ones.
    """

    name: str = "VELRO"
    subjects: Subjects = field(default_factory=Subjects)
    replicas: int = 1
    duplicate_window_s: float = 120.0
    max_bytes: int = -1

    @classmethod
    def of(cls, settings: LogSettings) -> StreamDeclaration:
        """What the environment says of it."""
        return cls(
            name=settings.stream,
            subjects=settings.subjects,
            replicas=settings.log_replicas,
            duplicate_window_s=settings.log_duplicate_window_s,
        )

    def settings(self) -> dict[str, object]:
        """As the server's API names them."""
        return {
            "name": self.name,
            "subjects": self.subjects.all(),
            "storage": "file",
            "retention": "limits",
            "discard": "new",
            "num_replicas": self.replicas,
            "duplicate_window": int(self.duplicate_window_s * _NANOSECONDS),
            "compression": "s2",
            "allow_direct": True,
            "allow_atomic": True,
            "deny_delete": True,
            # Everything below could make an event vanish, change or be lost after its
            # acknowledgement.
            "max_bytes": self.max_bytes,
            "max_msgs": -1,
            "max_msgs_per_subject": -1,
            "max_age": 0,
            "allow_rollup_hdrs": False,
            "allow_msg_ttl": False,
            "no_ack": False,
            "sealed": False,
            "persist_mode": "default",
            "mirror": None,
            "sources": None,
            "subject_transform": None,
        }


@dataclass(frozen=True, slots=True)
class StreamState:
    """Where the stream begins and ends, and which one it is.

    Attributes:
        created: the moment it was made; another one of the same name has another moment.
        first: the first position that is there (last + 1 in an empty stream).
        last: the last position ever given.
    """

    created: str
    first: int
    last: int


async def ensure_stream(
    connection: Client, declaration: StreamDeclaration, *, timeout_s: float = 5.0
) -> None:
    """Make the stream where there is none; where there is one, see that it is this one.

    Three settings are brought up to date without asking, because they take nothing away and
    refuse nothing that was allowed: `allow_direct` and `allow_atomic` are turned on, a shorter
    `duplicate_window` is lengthened. Everything else is for a person to decide.

    Raises:
        LogMismatch: the stream differs; the message names each setting.
        LogUnavailable: no answer.
    """
    try:
        found = await _found_or_created(connection, declaration, timeout_s)
        wanted = declaration.settings()
        additive = _additive(found, wanted)
        if others := differences(found | additive, declaration):
            raise LogMismatch(
                f"stream {declaration.name} was made with other settings: {'; '.join(others)}"
            )
        if additive:
            await ask(
                connection,
                f"$JS.API.STREAM.UPDATE.{declaration.name}",
                found | additive,
                timeout_s=timeout_s,
            )
            _log.info("stream_updated", stream=declaration.name, settings=additive)
    except NoAnswer as error:
        raise LogUnavailable(f"stream {declaration.name}: {error}") from error
    except ApiError as error:
        message = f"the server refuses stream {declaration.name}: {error}"
        raise (LogUnavailable if error.code >= 500 else LogMismatch)(message) from error  # noqa: PLR2004 - as in HTTP


def differences(found: dict[str, Any], declaration: StreamDeclaration) -> list[str]:
    """How a stream's settings, as the server tells them, differ from what they must be.

    A sentence each. A duplicate window may be any: it costs memory and takes nothing away.
    """
    return [
        f"{name} is {_value(found, name)!r} and should be {value!r}"
        for name, value in declaration.settings().items()
        if not _same(name, _value(found, name), value)
    ]


async def stream_state(connection: Client, name: str, *, timeout_s: float) -> StreamState:
    """Where the stream begins and ends.

    Raises:
        NoAnswer: nobody answered.
        ApiError: the server refused; `STREAM_NOT_FOUND` where there is none.
    """
    info = await ask(connection, f"$JS.API.STREAM.INFO.{name}", None, timeout_s=timeout_s)
    state = info["state"]
    last = int(state["last_seq"])
    # An empty stream made with a first position says so here, and 0 where it was made without.
    return StreamState(str(info["created"]), max(int(state["first_seq"]), 1), last)


async def _found_or_created(
    connection: Client, declaration: StreamDeclaration, timeout_s: float
) -> dict[str, Any]:
    name = declaration.name
    try:
        answer = await ask(connection, f"$JS.API.STREAM.INFO.{name}", None, timeout_s=timeout_s)
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        settings = {k: v for k, v in declaration.settings().items() if _ABSENT.get(k, ()) != v}
        # Two processes may do this at the same moment: the same settings twice are no error.
        answer = await ask(
            connection, f"$JS.API.STREAM.CREATE.{name}", settings, timeout_s=timeout_s
        )
        _log.info("stream_created", stream=name, subjects=declaration.subjects.all())
    return cast("dict[str, Any]", answer["config"])


def _additive(found: dict[str, Any], wanted: dict[str, object]) -> dict[str, object]:
    additive: dict[str, object] = {
        name: True for name in ("allow_direct", "allow_atomic") if not _value(found, name)
    }
    if int(found.get("duplicate_window", 0)) < cast("int", wanted["duplicate_window"]):
        additive["duplicate_window"] = wanted["duplicate_window"]
    return additive


def _value(found: dict[str, Any], name: str) -> object:
    return found.get(name, _ABSENT.get(name, False))


def _same(name: str, found: object, wanted: object) -> bool:
    if name == "duplicate_window":
        return True  # a shorter one was lengthened, a longer one remembers more
    if isinstance(found, list) and isinstance(wanted, list):
        return set(cast("list[str]", found)) == set(cast("list[str]", wanted))
    return (found or None) == (wanted or None)
