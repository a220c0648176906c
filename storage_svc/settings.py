"""What the storage service is started with; every name is an environment variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, PositiveInt

from shared.settings import Dsn, LogSettings, Seconds

if TYPE_CHECKING:
    from shared.media.settings import MediaSettings
    from shared.object_store.settings import S3Settings


class StorageSettings(LogSettings):
    """The storage service's settings, each as `VELRO_<NAME>`.

    Attributes:
        storage_postgres_dsn: its own database, with its own role.
        storage_host: the address of the health routes. Callers are not authenticated.
        storage_port: 0 takes a free one.
        storage_workers: copies at once in this process.
        storage_lease_s: how long the work of a process that died stays with it.
        refetch_max_requests: how often a new link is asked for, an output; 0 asks for none.
        refetch_window_s: how long a new link is waited for before an output counts as lost.
        drain_s: how long a shutdown waits for running copies before it gives them back.
    """

    storage_postgres_dsn: Dsn
    storage_host: str = "127.0.0.1"
    storage_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    storage_workers: Annotated[PositiveInt, Field(le=256)] = 16
    storage_lease_s: Annotated[Seconds, Field(ge=3)] = 60.0
    refetch_max_requests: Annotated[int, Field(ge=0, le=100)] = 2
    refetch_window_s: Seconds = 900.0
    drain_s: Seconds = 30.0


@dataclass(frozen=True, slots=True)
class CopySettings:
    """What copying takes: where from, and where to."""

    media: MediaSettings
    bucket: S3Settings
