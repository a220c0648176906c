"""How media may be fetched, from the environment."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.settings import BytesPerSecond, Seconds

MIB = 1024 * 1024

# Where each provider's outputs come from. `*.` stands for any subdomain.
DEFAULT_HOSTS: dict[str, tuple[str, ...]] = {
    "fal": ("fal.media", "*.fal.media", "*.fal.ai", "*.fal.run"),
    "sandbox": (),
}

# What no honest output of its family exceeds; all else may be as large as `media_max_bytes`.
DEFAULT_MAX_BYTES: dict[str, int] = {
    "image": 256 * MIB,
    "audio": 512 * MIB,
    "application": 16 * MIB,
}

_HOST = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
_ORIGIN = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9_.-]+):[0-9]{1,5}")


def _listed(value: object) -> object:
    """The entries of a variable that separates them with commas."""
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return value


def _host_pattern(text: str) -> str:
    pattern = text.strip().lower().rstrip(".")
    if not _HOST.fullmatch(pattern) or "." not in pattern.removeprefix("*."):
        raise ValueError(f"{text!r} is no host: a name with a dot in it, or *. and such a name")
    return pattern


def _host_and_port(text: str) -> str:
    origin = text.strip().lower()
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(f"{text!r} is not host:port")
    return origin


def _named(value: object) -> object:
    # An empty path is the folder that a program happens to be started in.
    if value == "":
        raise ValueError("is empty: name a folder")
    return value


class MediaSettings(BaseSettings):
    """What may be fetched, and how patiently; each as `VELRO_<NAME>`.

    Attributes:
        media_hosts: by provider, the hosts its outputs may come from, as JSON. A provider that
            is not named here has none. Names beyond ASCII in their `xn--` form.
        media_http_hosts: `host:port` entries, separated by commas, that may be fetched over plain
            http and may lie on a private network or on loopback. For the sandbox, and media
            servers of your own; never for what a provider names.
        media_max_bytes: the largest output.
        media_max_bytes_of: smaller limits for families of media types, as JSON.
        media_timeout_s: the longest that one download may take in all.
        media_min_bytes_per_s: a download slower than this, over a window, is given up.
        media_window_s: how long that window is; a connection silent for as long is broken.
        spool_dir: where downloads lie until they are stored.
        spool_max_bytes: how much may lie there at once, for all downloads of this process.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_", extra="ignore")

    media_hosts: dict[str, tuple[Annotated[str, AfterValidator(_host_pattern)], ...]] = (
        DEFAULT_HOSTS
    )
    media_http_hosts: Annotated[
        tuple[Annotated[str, AfterValidator(_host_and_port)], ...],
        NoDecode,
        BeforeValidator(_listed),
    ] = ()
    media_max_bytes: PositiveInt = 2048 * MIB
    media_max_bytes_of: dict[str, PositiveInt] = DEFAULT_MAX_BYTES
    media_timeout_s: Seconds = 900.0
    media_min_bytes_per_s: BytesPerSecond = 10_000.0
    media_window_s: Seconds = 10.0
    # A user of their own: what another may write to, another may swap.
    spool_dir: Annotated[Path, BeforeValidator(_named)] = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"velro-spool-{os.getuid()}"
    )
    spool_max_bytes: PositiveInt = 8192 * MIB

    def max_bytes_of(self, family: str) -> int:
        """The largest output of a family of media types."""
        return min(self.media_max_bytes, self.media_max_bytes_of.get(family, self.media_max_bytes))
