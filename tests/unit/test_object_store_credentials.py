"""Keys from files: taken when they are a pair, kept when they are not."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

import pytest

from shared.object_store.credentials import KeyPair, KeysUnreadable, S3Credentials
from shared.object_store.settings import S3Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    access_key, secret_key = tmp_path / "access", tmp_path / "secret"
    access_key.write_text("first\n")
    secret_key.write_text("first-secret\n")
    return access_key, secret_key


async def credentials_of(files: tuple[Path, Path]) -> S3Credentials:
    access_key, secret_key = files
    return await S3Credentials.of(
        S3Settings(access_key_file=access_key, secret_key_file=secret_key)
    )


async def signed_with(credentials: S3Credentials) -> KeyPair:
    frozen = await credentials.for_clients.get_frozen_credentials()
    assert frozen.access_key is not None
    assert frozen.secret_key is not None
    return KeyPair(frozen.access_key, frozen.secret_key)


async def test_a_pair_in_files_is_what_is_signed_with(files: tuple[Path, Path]) -> None:
    credentials = await credentials_of(files)
    assert await signed_with(credentials) == KeyPair("first", "first-secret")


async def test_another_pair_is_taken_when_it_is_read_again(files: tuple[Path, Path]) -> None:
    credentials = await credentials_of(files)
    files[0].write_text("second")
    files[1].write_text("second-secret")
    assert await signed_with(credentials) == KeyPair("first", "first-secret")
    await credentials.reread()
    assert await signed_with(credentials) == KeyPair("second", "second-secret")
    assert credentials.version == 1


@pytest.mark.parametrize("written", [b"", b"\n", b"two words", b"\xff\xfe\x00", b"x" * 5000])
async def test_what_is_no_key_leaves_the_pair_as_it_was(
    files: tuple[Path, Path], written: bytes
) -> None:
    credentials = await credentials_of(files)
    files[0].write_text("second")
    files[1].write_bytes(written)
    await credentials.reread()
    assert await signed_with(credentials) == KeyPair("first", "first-secret")
    with pytest.raises(KeysUnreadable, match="secret"):
        await credentials_of(files)


async def test_a_file_that_is_gone_leaves_the_pair_as_it_was(files: tuple[Path, Path]) -> None:
    credentials = await credentials_of(files)
    files[0].unlink()
    await credentials.reread()
    assert await signed_with(credentials) == KeyPair("first", "first-secret")
    with pytest.raises(KeysUnreadable, match="access cannot be read"):
        await credentials_of(files)


class Changing:
    """A file that holds something else each time that it is read."""

    def __init__(self, contents: Iterator[bytes]) -> None:
        self._contents = contents

    def open(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(next(self._contents))


async def test_files_that_change_while_they_are_read_are_read_until_they_do_not() -> None:
    # As when a mounted secret is swapped between the reading of one file and of the other.
    access_key = Changing(iter((b"old", b"new", b"new", b"new")))
    secret_key = Changing(iter((b"new-secret",) * 4))
    files = (cast("Path", access_key), cast("Path", secret_key))
    settings = S3Settings(access_key="a", secret_key="b").model_copy(  # pyright: ignore[reportArgumentType] - pydantic makes it a secret
        update={"access_key_file": files[0], "secret_key_file": files[1]}
    )
    credentials = await S3Credentials.of(settings)
    assert await signed_with(credentials) == KeyPair("new", "new-secret")


async def test_keys_given_as_values_stay_what_they_are() -> None:
    credentials = await S3Credentials.of(
        S3Settings.model_validate({"access_key": "a", "secret_key": "b"})
    )
    await credentials.reread()
    assert await signed_with(credentials) == KeyPair("a", "b")
    assert not credentials.from_files


async def test_a_secret_key_is_not_shown() -> None:
    assert "b-secret" not in repr(KeyPair("a", "b-secret"))
