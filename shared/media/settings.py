"""How media may be fetched, from the environment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MIB = 1024 * 1024

# Where each provider's outputs come from. `*.` stands for any subdomain.
DEFAULT_HOSTS: dict[str, tuple[str, ...]] = {
    "fal": ("fal.media", "*.fal.media", "*.fal.ai", "*.fal.run"),
    "sandbox": (),
}


def _listed(value: object) -> object:
    """The entries of a variable that separates them with commas."""
    if isinstance(value, str):
        return tuple(entry.strip() for entry in value.split(",") if entry.strip())
    return value


class MediaSettings(BaseSettings):
    """What may be fetched, and how patiently; each as `VELRO_<NAME>`.

    Attributes:
        media_hosts: by provider, the hosts its outputs may come from, as JSON. A provider that
            is not named here has none.
        media_http_hosts: `host:port` entries, separated by commas, that may be fetched over plain
            http and may lie on a private network or on loopback. For the sandbox, and media
            servers of your own; never for what a provider names.
        media_max_bytes: the largest output.
        media_timeout_s: the longest that one download may take in all.
        media_min_bytes_per_s: a download slower than this, over ten seconds, is given up.
        spool_dir: where downloads lie until they are stored.
        spool_max_bytes: how much may lie there at once, for all downloads of this process.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_", extra="ignore")

    media_hosts: dict[str, tuple[str, ...]] = DEFAULT_HOSTS
    media_http_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = ()
    media_max_bytes: PositiveInt = 2048 * MIB
    media_timeout_s: PositiveFloat = 900.0
    media_min_bytes_per_s: PositiveFloat = 10_000.0
    spool_dir: Path = Field(default_factory=lambda: Path(tempfile.gettempdir()) / "velro-spool")
    spool_max_bytes: PositiveInt = 8192 * MIB
