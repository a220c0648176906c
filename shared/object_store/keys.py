"""The names of objects."""


def object_key(user_id: str, generation_id: str, index: int, sha256: str, extension: str) -> str:
    """`<user>/<generation>/<index>-<first 16 hex of the sha256>.<extension>`.

    Made from the bytes, so a repeat writes the same object; by user and generation, so row-level
    policies work by folder and erasing a user is erasing a prefix.
    """
    return f"{user_id}/{generation_id}/{index}-{sha256[:16]}.{extension}"
