"""The log's server and its stream: what keeps an acknowledged event, and what could lose it."""

from __future__ import annotations

import ipaddress
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

import httpx
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.event_log.jetstream_api import STREAM_NOT_FOUND, ApiError, ask
from shared.event_log.jetstream_stream import StreamDeclaration, differences
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from velro.doctor.access import judged_access
from velro.doctor.clocks import judged_skew
from velro.doctor.findings import Part, Verdict, green, red, yellow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from shared.messaging.deliveries import DeliveringClient
    from shared.settings import LogSettings

_NANOSECONDS: Final = 1_000_000_000
_ASK_S: Final = 2.0
# Atomic batches are of 2.12. Jepsen found streams lost to crashes in 2.12.1; what it found was
# mended up to 2.12.3 (https://jepsen.io/analyses/nats-2.12.1).
_OLDEST_THAT_WORKS: Final = (2, 12, 0)
_OLDEST_TO_TRUST: Final = (2, 12, 3)
_QUORUM: Final = 3
_MONITORING: Final = "set VELRO_NATS_MONITOR_URL to its HTTP monitoring (as http://nats:8222)"
_FULL_YELLOW: Final = 0.8
_FULL_RED: Final = 0.95


class MonitorSettings(BaseSettings):
    """Where NATS can be looked at, each setting as `VELRO_<NAME>`.

    Attributes:
        nats_monitor_url: its HTTP monitoring, such as http://nats:8222. Some of what matters is
            told nowhere else.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_", extra="ignore")

    nats_monitor_url: str | None = None


@dataclass(frozen=True, slots=True)
class Retrying:
    """How long what was begun may be begun again, by what decides it, in seconds."""

    horizons_s: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LogServer:
    """A connection to the log's server.

    Attributes:
        varz: what its monitoring says; None where nobody said where that is.
        health: what is wrong with it by its own word; None where it says nothing.
    """

    connection: DeliveringClient
    access: NatsAccess
    settings: LogSettings
    varz: dict[str, Any] | None
    health: str | None
    retrying: Retrying


def nats_part(settings: LogSettings, monitor: MonitorSettings, retrying: Retrying) -> Part[Any]:
    """NATS and the log's stream."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[LogServer]:
        access = NatsAccess.of(settings)
        async with connected(access, name="velro doctor", timeout_s=5.0) as connection:
            varz = await _varz(monitor.nats_monitor_url)
            health = await _unwell(monitor.nats_monitor_url)
            yield LogServer(connection, access, settings, varz, health, retrying)

    return Part(
        name="nats",
        opened=opened,
        checks={
            "version": _version,
            "access": _access,
            "health": _health,
            "sync_interval": _sync_interval,
            "stream": _stream,
            "replicas": _replicas,
            "duplicate window": _duplicate_window,
            "space": _space,
            "clock": _clock,
        },
        advice="see that NATS runs with JetStream, and that VELRO_NATS_URL leads to it",
    )


async def _varz(url: str | None) -> dict[str, Any] | None:
    if url is None:
        return None
    async with httpx.AsyncClient(trust_env=False, timeout=_ASK_S) as http:
        try:
            answer = await http.get(f"{url.rstrip('/')}/varz")
            answer.raise_for_status()
            return cast("dict[str, Any]", answer.json())
        except (httpx.HTTPError, ValueError) as error:
            return {"unreachable": f"{url}/varz: {error or type(error).__name__}"}


async def _unwell(url: str | None) -> str | None:
    """What is wrong with a server by its own word; None where all is well, or it says nothing."""
    if url is None:
        return None
    async with httpx.AsyncClient(trust_env=False, timeout=_ASK_S) as http:
        try:
            told = (await http.get(f"{url.rstrip('/')}/healthz")).json()
        except (httpx.HTTPError, ValueError):
            return None  # /varz tells of monitoring that does not answer
    match told:
        case {"status": "ok"}:
            return None
        case {"error": str(error)}:
            return error
        case _:
            return str(told)


async def _health(server: LogServer) -> Verdict:
    if server.health is not None:
        return red(
            server.health,
            "see NATS' own log; where its disk was full, make room and restart it: after a write "
            "that failed it answers no append, though it reads on",
        )
    if server.varz is None or "unreachable" in server.varz:
        return yellow("unknown: only the server's monitoring tells", _MONITORING)
    return green("by its own word it is well")


async def _version(server: LogServer) -> Verdict:
    version = server.connection.connected_server_version
    return judged_version(f"{version.major}.{version.minor}.{version.patch}")


def judged_version(version: str) -> Verdict:
    """What a server's version, as 2.15.1, means for the log."""
    numbers = tuple(int(part) for part in version.split("."))
    upgrade = "run NATS 2.12.3 or newer; data stays where it is"
    if numbers < _OLDEST_THAT_WORKS:
        return red(f"{version} knows no atomic batches, which the log needs", upgrade)
    if numbers < _OLDEST_TO_TRUST:
        return yellow(f"{version} may lose a stream's file in a crash", upgrade)
    return green(version)


async def _access(server: LogServer) -> Verdict:
    connection, credentials = server.connection, server.access.credentials()
    return judged_access(
        open_to_all=connection.open_to_all,
        encrypted=connection.encrypted,
        with_password=server.access.has_password,
        expires_at=credentials and credentials.expires_at,
        here=_is_here(server.settings.nats_url),
    )


async def _sync_interval(server: LogServer) -> Verdict:
    setting = "set `sync_interval: always` in the jetstream block of the server's configuration"
    varz = server.varz
    if varz is None or "unreachable" in varz:
        why = varz["unreachable"] if varz else "VELRO_NATS_MONITOR_URL is not set"
        return yellow(
            f"unknown ({why}): only the server's monitoring tells",
            f"{_MONITORING}, or look for `sync_interval: always` in the server's configuration",
        )
    connected_to = server.connection._server_info.get("server_id")  # noqa: SLF001 - nats-py tells it nowhere else # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType]
    clustered = bool(varz.get("cluster", {}).get("name"))
    if varz.get("server_id") != connected_to and not clustered:
        return yellow(
            "unknown: VELRO_NATS_MONITOR_URL leads to another server than VELRO_NATS_URL",
            "let both name the same server",
        )
    config = varz.get("jetstream", {}).get("config", {})
    if config.get("sync_always"):
        return green("always: what is acknowledged is on the disk")
    interval_s = int(config.get("sync_interval", 0)) / _NANOSECONDS
    return red(f"a power failure takes the last {interval_s:g} s of acknowledged events", setting)


async def _info(server: LogServer) -> dict[str, Any]:
    stream = server.settings.stream
    return await ask(server.connection, f"$JS.API.STREAM.INFO.{stream}", None, timeout_s=_ASK_S)


async def _stream(server: LogServer) -> Verdict:
    settings = server.settings
    try:
        info = await _info(server)
    except ApiError as error:
        if error.err_code != STREAM_NOT_FOUND:
            raise
        return red(
            f"there is no stream {settings.stream}",
            "a new installation: `generation-svc init`. Else the log is gone: restore it from its "
            "archive before any service is started",
        )
    wanted = StreamDeclaration(
        name=settings.stream,
        subjects=settings.subjects,
        replicas=int(info["config"]["num_replicas"]),  # judged by itself
        max_bytes=int(info["config"]["max_bytes"]),  # the same
    )
    if found := differences(info["config"], wanted):
        return red(
            "; ".join(found), "set these with `nats stream edit`; events may vanish as it is"
        )
    state = info["state"]
    return green(
        f"{state['messages']:,} events, positions {state['first_seq']} to {state['last_seq']}"
    )


async def _replicas(server: LogServer) -> Verdict:
    settings = server.settings
    return judged_replicas(
        await _info(server), wanted=settings.log_replicas, here=_is_here(settings.nats_url)
    )


def judged_replicas(info: dict[str, Any], *, wanted: int, here: bool) -> Verdict:
    """What a stream's replicas mean; `here`: the server is on this machine, as all else may be."""
    found = int(info["config"]["num_replicas"])
    peers: list[dict[str, Any]] = info.get("cluster", {}).get("replicas") or []
    late = [str(peer.get("name")) for peer in peers if not peer.get("current")]
    if late:
        return red(
            f"of {found} replicas {', '.join(late)} lag behind or are away",
            "bring those servers back before anything else is restarted",
        )
    if found < wanted:
        return red(f"{found}, and VELRO_LOG_REPLICAS asks for {wanted}", "`nats stream edit`")
    if found >= _QUORUM:
        return green(f"{found}, all up to date")
    if here:
        return green(f"{found}: all of this Velro is on one machine")
    return yellow(
        f"{found}: the log is lost with that server's disk",
        "run three servers with VELRO_LOG_REPLICAS=3, and keep the archive in the bucket",
    )


async def _duplicate_window(server: LogServer) -> Verdict:
    info = await _info(server)
    window_s = int(info["config"]["duplicate_window"]) / _NANOSECONDS
    needs = {name: s for name, s in server.retrying.horizons_s.items() if s > window_s}
    if needs:
        name, longest_s = max(needs.items(), key=lambda each: each[1])
        return yellow(
            f"{window_s:g} s, while work is begun again after up to {longest_s:g} s ({name}): a "
            "repeat after that is told from a new event by its version alone",
            f"set VELRO_LOG_DUPLICATE_WINDOW_S to {longest_s:g} or more and restart the services",
        )
    longest_s = max(server.retrying.horizons_s.values(), default=0.0)
    return green(f"{window_s:g} s, over the {longest_s:g} s after which work is begun again")


async def _space(server: LogServer) -> Verdict:
    info = await _info(server)
    limits: list[tuple[str, float, float]] = []
    if (most := int(info["config"]["max_bytes"])) > 0:
        limits.append(("the stream's max_bytes", int(info["state"]["bytes"]), most))
    account = await ask(server.connection, "$JS.API.INFO", None, timeout_s=_ASK_S)
    if (most := int(account.get("limits", {}).get("max_storage", -1))) > 0:
        limits.append(("the account's storage", int(account["storage"]), most))
    jetstream = (server.varz or {}).get("jetstream", {})
    if (most := int(jetstream.get("config", {}).get("max_storage", -1))) > 0:
        limits.append(("the server's max_storage", int(jetstream["stats"]["storage"]), most))
    if not limits:
        return yellow(
            "unknown: nothing says how much the log may hold",
            "set VELRO_NATS_MONITOR_URL, or watch the disk under the server's store_dir",
        )
    return judged_space(limits)


def judged_space(limits: list[tuple[str, float, float]]) -> Verdict:
    """What is used of each limit: its name, bytes used, the most that it takes."""
    name, used, most = max(limits, key=lambda each: each[1] / each[2])
    share = used / most
    found = f"{share:.0%} of {name} is used ({used / 2**30:.1f} of {most / 2**30:.1f} GiB)"
    advice = "give NATS more disk or raise the limit: a full log refuses every new event"
    if share >= _FULL_RED:
        return red(found, advice)
    return yellow(found, advice) if share >= _FULL_YELLOW else green(found)


async def _clock(server: LogServer) -> Verdict:
    before = datetime.now(UTC)
    info = await _info(server)
    after = datetime.now(UTC)
    return judged_skew(_moment(str(info["ts"])), before, after)


def _moment(text: str) -> datetime:
    # Nanoseconds are more than Python's own reader takes.
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6].ljust(6, '0')}+00:00")


def _is_here(urls: str) -> bool:
    hosts = [urlsplit(url).hostname or "" for url in urls.split(",")]
    return all(host == "localhost" or _is_loopback(host) for host in hosts)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
