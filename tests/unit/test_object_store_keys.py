from __future__ import annotations

import hashlib
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.object_store.capabilities import BodyCheck
from shared.object_store.file_part import FilePart
from shared.object_store.keys import is_object_key, object_key

SHA256 = "0123456789abcdef" * 4
users = st.from_regex(r"\A[A-Za-z0-9_@.+-]{1,128}\Z")


def test_a_key_is_the_user_then_the_generation_then_the_output_by_its_bytes() -> None:
    key = object_key("ann", "g1", 3, SHA256, "png")
    assert key == "ann/g1/3-0123456789abcdef.png"
    assert is_object_key(key)


@pytest.mark.parametrize("user", [".", ".."])
def test_a_user_called_like_a_step_in_a_path_stays_in_a_folder_of_their_own(user: str) -> None:
    key = object_key(user, "g1", 0, SHA256, "png")
    assert key.split("/")[0] == user.replace(".", "%2E")
    assert is_object_key(key)


@given(users, users)
def test_two_users_never_share_a_folder(one: str, other: str) -> None:
    folders = {object_key(user, "g", 0, SHA256, "png").split("/")[0] for user in (one, other)}
    assert len(folders) == len({one, other})
    assert not folders & {".", ".."}


@pytest.mark.parametrize(
    "key",
    ["", "a/b", "backups/x.tar", "a/b/c/0-0123456789abcdef.png", "a/b/0-0123.png", "/g/0-.png"],
)
def test_what_others_put_into_the_bucket_is_not_ours(key: str) -> None:
    assert not is_object_key(key)


@given(offset=st.integers(0, 512), size=st.integers(0, 512))
def test_a_check_of_a_part_of_a_file_is_of_those_bytes(
    tmp_path_factory: pytest.TempPathFactory, offset: int, size: int
) -> None:
    whole = bytes(range(256)) * 4
    path = tmp_path_factory.getbasetemp() / "a-part"
    path.write_bytes(whole)
    expected = whole[offset : offset + size]
    part = FilePart(path, offset=offset, size_bytes=size)
    assert part.digest(BodyCheck.SHA256) == hashlib.sha256(expected).digest()
    assert part.digest(BodyCheck.MD5) == hashlib.md5(expected, usedforsecurity=False).digest()
    assert part.digest(BodyCheck.CRC32) == zlib.crc32(expected).to_bytes(4, "big")
