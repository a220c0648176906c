"""The read models by name: whose settings, which database, which fold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from generation_svc.read_model.model import GenerationModel
from generation_svc.settings import GenerationSettings
from shared.errors import TryLater
from shared.program import settings_of
from storage_svc.read_model.model import BacklogModel
from storage_svc.settings import StorageSettings

if TYPE_CHECKING:
    from shared.projection.port import ReadModel
    from shared.settings import LogSettings


class ReadModelAway(TryLater):
    """Its database does not answer, or holds no tables yet."""


class ReadModelName(StrEnum):
    """The read models there are."""

    GENERATION = "generation"
    STORAGE = "storage"


@dataclass(frozen=True, slots=True)
class ReadModelPlace:
    """A read model, where its tables are, and where its log is."""

    settings: LogSettings
    dsn: str
    model: ReadModel[Any]


def read_model_of(name: ReadModelName) -> ReadModelPlace:
    """What the environment says of a read model; the program ends where it is wrong."""
    match name:
        case ReadModelName.GENERATION:
            generation = settings_of(GenerationSettings)
            dsn = generation.generation_postgres_dsn.get_secret_value()
            return ReadModelPlace(generation, dsn, GenerationModel())
        case ReadModelName.STORAGE:
            storage = settings_of(StorageSettings)
            dsn = storage.storage_postgres_dsn.get_secret_value()
            return ReadModelPlace(storage, dsn, BacklogModel())
