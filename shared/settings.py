"""Settings that both services read, each from the environment and validated at start."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Self, TypeVar

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from shared.contracts.subjects import Subjects
from shared.errors import Refused

AnySettings = TypeVar("AnySettings", bound=BaseSettings)

# Ten years: what is longer is a mistake, and at some time no clock can tell when it is over.
_LONGEST_S: Final = 10 * 365 * 86_400.0
Seconds = Annotated[float, Field(gt=0, le=_LONGEST_S, allow_inf_nan=False)]
SecondsOrZero = Annotated[float, Field(ge=0, le=_LONGEST_S, allow_inf_nan=False)]
"""0: not at all."""
BytesPerSecond = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _nothing_for_empty(value: object) -> object:
    return None if value == "" else value


# What is passed on without a value is there, and empty: a variable by compose, a column of CSV.
UnsetWhenEmpty = BeforeValidator(_nothing_for_empty)
NotEmpty = Annotated[str, Field(min_length=1)]
Dsn = Annotated[SecretStr, Field(min_length=1)]


class BadSettings(Refused):
    """The environment is not one to start with; the message names each variable."""


def loaded(kind: type[AnySettings]) -> AnySettings:
    """The settings that the environment holds.

    Raises:
        BadSettings: a variable is missing or wrong.
    """
    prefix = kind.model_config.get("env_prefix", "")
    try:
        return kind()
    except ValidationError as error:
        # Values are not shown: some of them are secrets.
        lines = [
            f"{prefix}{'_'.join(str(part) for part in problem['loc']) or '*'}".upper()
            + f": {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise BadSettings("\n".join(lines)) from error
    except SettingsError as error:
        raise BadSettings(f"{prefix}*: {error}") from error


class LogSettings(BaseSettings):
    """Where the log is and how its stream is made.

    Attributes:
        nats_url: one server or several, separated by commas; `tls://` where nothing else will do.
        nats_creds_file: of the user that the services are to NATS.
        nats_ca_file: who has signed the servers' certificates; the system's own where not set.
        nats_cert_file, nats_key_file: our own certificate, where NATS asks for one.
        stream: the stream's name.
        subject_root: the first token of every subject.
        log_replicas: copies of the stream in a cluster; 1 for a single server.
        log_duplicate_window_s: how long the server remembers event ids.
        projector_attempts: how often an event over which processes died is tried alone before it
            is parked.
        projector_fold_limit_s: a fold that takes longer for one batch ends the process, which
            counts as such a death.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_", extra="ignore")

    nats_url: NotEmpty = "nats://127.0.0.1:4222"
    nats_creds_file: Annotated[Path | None, UnsetWhenEmpty] = None
    nats_ca_file: Annotated[Path | None, UnsetWhenEmpty] = None
    nats_cert_file: Annotated[Path | None, UnsetWhenEmpty] = None
    nats_key_file: Annotated[Path | None, UnsetWhenEmpty] = None
    stream: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "VELRO"
    subject_root: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "velro"
    log_replicas: PositiveInt = 1
    log_duplicate_window_s: SecondsOrZero = 120.0
    projector_attempts: PositiveInt = 3
    projector_fold_limit_s: Seconds = 60.0

    @model_validator(mode="after")
    def _whole_certificate(self) -> Self:
        if (self.nats_cert_file is None) != (self.nats_key_file is None):
            raise ValueError("VELRO_NATS_CERT_FILE and VELRO_NATS_KEY_FILE go together: give both")
        return self

    @property
    def subjects(self) -> Subjects:
        """The subjects of the log."""
        return Subjects(self.subject_root)
