"""What the storage service is started with; every name is an environment variable."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, ValidationError

from shared.errors import Refused
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


def from_environment() -> StorageSettings:
    """The settings that the environment holds.

    Raises:
        BadSettings: a variable is missing or wrong.
    """
    try:
        return StorageSettings()  # pyright: ignore[reportCallIssue] - fields come from the environment
    except ValidationError as error:
        raise BadSettings(explained(error)) from error


def explained(error: ValidationError) -> str:
    """One line a variable: its name, and what is wrong with it. Values are not shown."""
    lines = [
        f"VELRO_{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_input=False)
    ]
    return "\n".join(lines)
