"""The names of objects."""

import re
from typing import Final

_OURS: Final = re.compile(r"[^/]+/[^/]+/[0-9]+-[0-9a-f]{16}\.[a-z0-9]+")


def object_key(user_id: str, generation_id: str, index: int, sha256: str, extension: str) -> str:
    """`<user>/<generation>/<index>-<first 16 hex of the sha256>.<extension>`.

    Made from the bytes, so a repeat writes the same object; by user and generation, so row-level
    policies work by folder and erasing a user is erasing a prefix. A user called `.` or `..` is
    written `%2E`, which no user can be called: clients resolve such folders on their way.
    """
    return f"{folder_of(user_id, generation_id)}/{index}-{sha256[:16]}.{extension}"


def folder_of(user_id: str, generation_id: str) -> str:
    """What the keys of one generation's objects begin with, without the slash."""
    folder = user_id.replace(".", "%2E") if user_id in {".", ".."} else user_id
    return f"{folder}/{generation_id}"


def is_object_key(key: str) -> bool:
    """Whether a key has the shape of ours: in a shared bucket, what else is there is not."""
    return _OURS.fullmatch(key) is not None
