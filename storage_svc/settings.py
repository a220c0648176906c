"""What the storage service is started with; every name is an environment variable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsError

from shared.errors import Refused
from shared.media.settings import MediaSettings
from shared.object_store.settings import S3Settings
from shared.settings import LogSettings


class BadSettings(Refused):
    """The environment is not one to start with; the message names each variable."""


class StorageSettings(LogSettings):
    """The storage service's settings, each as `VELRO_<NAME>`.

    Attributes:
        storage_postgres_dsn: its own database, with its own role.
        storage_host: the address of the health routes. Callers are not authenticated.
        storage_port: 0 takes a free one.
        storage_workers: copies at once in this process.
        storage_lease_s: how long the work of a process that died stays with it.
        drain_s: how long a shutdown waits for running copies before it gives them back.
    """

    storage_postgres_dsn: SecretStr
    storage_host: str = "127.0.0.1"
    storage_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    storage_workers: Annotated[PositiveInt, Field(le=256)] = 16
    storage_lease_s: Annotated[float, Field(ge=3)] = 60.0
    drain_s: PositiveFloat = 30.0


@dataclass(frozen=True, slots=True)
class CopySettings:
    """What copying takes: where from, and where to."""

    media: MediaSettings
    bucket: S3Settings


def from_environment() -> StorageSettings:
    """The settings that the environment holds.

    Raises:
        BadSettings: a variable is missing or wrong.
    """
    return _loaded(StorageSettings)


def copying_from_environment() -> CopySettings:
    """How to copy, as the environment says.

    Raises:
        BadSettings: a variable is missing or wrong.
    """
    return CopySettings(_loaded(MediaSettings), _loaded(S3Settings))


AnySettings = TypeVar("AnySettings", bound=BaseSettings)


def _loaded(kind: type[AnySettings]) -> AnySettings:
    try:
        return kind()
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        # Values are not shown: some of them are secrets.
        lines = [
            f"{prefix}{'_'.join(str(part) for part in problem['loc'])}".upper()
            + f": {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise BadSettings("\n".join(lines)) from error
    except SettingsError as error:
        raise BadSettings(f"{kind.model_config.get('env_prefix', '')}*: {error}") from error
