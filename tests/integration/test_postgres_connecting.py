"""An address that is wrong is a sentence, and shows no password."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

import pytest

from shared.postgres.connecting import PostgresRefused, connect


def with_path(dsn: str, path: str) -> str:
    return urlunsplit(urlsplit(dsn)._replace(path=path))


def of_nobody(dsn: str) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"nobody:sesame@{parts.netloc.rpartition('@')[2]}"))


async def test_a_wrong_role_database_or_address_is_told(database: str) -> None:
    for dsn, why in (
        (of_nobody(database), "nobody"),
        (with_path(database, "/no_such_database"), "no_such_database"),
        ("nonsense:sesame", "invalid DSN"),
    ):
        with pytest.raises(PostgresRefused, match=why) as refused:
            await connect(dsn, schema="any", application_name="test")
        assert "sesame" not in str(refused.value)
        assert "VELRO_GENERATION_POSTGRES_DSN" in str(refused.value)
