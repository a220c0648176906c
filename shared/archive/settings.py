"""Where the archive is and how it is cut, from the environment."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import Seconds


class ArchiveSettings(BaseSettings):
    """The archive, in the bucket of the media. Each setting as `VELRO_ARCHIVE_<NAME>`.

    Attributes:
        enabled: whether the storage service writes it while it serves.
        prefix: what its keys begin with.
        segment_bytes: events of so many bytes, before they are compressed, make a segment.
        segment_age_s: what is in the log for so long is archived, however little it is.
        trim_after_days: events of generations that are settled for so long leave the stream, and
            are in the archive alone; None: all stay.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_ARCHIVE_", extra="ignore")

    enabled: bool = True
    prefix: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] = "velro-log"
    segment_bytes: PositiveInt = 16 * 1024 * 1024
    segment_age_s: Seconds = 300.0
    trim_after_days: Annotated[float, Field(gt=0, le=36_500)] | None = None
