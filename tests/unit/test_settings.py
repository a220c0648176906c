"""Variables with nonsense in them are refused at start, each by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from generation_svc.settings import GenerationSettings
from shared.archive.settings import ArchiveSettings
from shared.media.settings import MediaSettings
from shared.object_store.settings import S3Settings
from shared.settings import BadSettings, loaded
from storage_svc.settings import StorageSettings

if TYPE_CHECKING:
    from pydantic_settings import BaseSettings

GIVEN = {
    "VELRO_GENERATION_POSTGRES_DSN": "postgresql://a@b/c",
    "VELRO_STORAGE_POSTGRES_DSN": "postgresql://a@b/c",
    "VELRO_S3_ACCESS_KEY": "key",
    "VELRO_S3_SECRET_KEY": "secret",
}
KINDS: list[type[BaseSettings]] = [
    GenerationSettings,
    StorageSettings,
    ArchiveSettings,
    MediaSettings,
    S3Settings,
]
NUMBERS = [
    (kind, name)
    for kind in KINDS
    for name, field in kind.model_fields.items()
    if "float" in str(field.annotation)
]


def variable(kind: type[BaseSettings], name: str) -> str:
    return f"{kind.model_config.get('env_prefix', '')}{name}".upper()


@pytest.fixture(autouse=True)
def given(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_to_be_given_is_enough(kind: type[BaseSettings]) -> None:
    assert loaded(kind)


@pytest.mark.parametrize(
    "variable",
    [
        "FAL_KEY",
        "VELRO_FAL_USER_ID",
        "VELRO_FAL_ADMIN_KEY",
        "VELRO_SANDBOX_URL",
        "VELRO_WEBHOOK_BASE_URL",
        "VELRO_WEBHOOK_SECRET",
    ],
)
def test_what_is_passed_on_without_a_value_is_not_set(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unset = loaded(GenerationSettings)
    monkeypatch.setenv(variable, "")
    assert loaded(GenerationSettings) == unset


@pytest.mark.parametrize("value", ["", "-1", "inf", "nan", "soon"])
@pytest.mark.parametrize(("kind", "name"), NUMBERS)
def test_a_number_that_no_clock_can_wait_for_is_refused(
    kind: type[BaseSettings], name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(kind, name), value)
    with pytest.raises(BadSettings, match=f"^{variable(kind, name)}: "):
        loaded(kind)


@pytest.mark.parametrize(("kind", "name"), [each for each in NUMBERS if "bytes" not in each[1]])
def test_a_time_beyond_all_calendars_is_refused(
    kind: type[BaseSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(kind, name), "99999999999999999999")
    with pytest.raises(BadSettings, match=f"^{variable(kind, name)}: "):
        loaded(kind)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (StorageSettings, "nats_url"),
        (StorageSettings, "storage_postgres_dsn"),
        (GenerationSettings, "generation_postgres_dsn"),
        (MediaSettings, "spool_dir"),
        (S3Settings, "bucket"),
        (S3Settings, "region"),
    ],
)
def test_a_place_without_a_name_is_refused(
    kind: type[BaseSettings], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(kind, name), "")
    with pytest.raises(BadSettings, match=f"^{variable(kind, name)}: "):
        loaded(kind)
