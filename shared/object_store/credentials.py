"""The keys to the bucket: values from the environment, files that may change, or a role's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import structlog
from aiobotocore.credentials import AioCredentials
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from shared.errors import Refused

if TYPE_CHECKING:
    from pathlib import Path

    from shared.object_store.settings import S3Settings

log = structlog.get_logger()

# What is longer is no key but another file, named by mistake.
_MAX_BYTES: Final = 4096
# Files that are just being written are read again after a moment.
_READINGS: Final = 5
_BETWEEN_READINGS_S: Final = 0.05


class KeysUnreadable(Refused):
    """There is no pair of keys where the settings say that one is."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """What requests are signed with; `token` goes along with a role's."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Files:
    access_key: Path
    secret_key: Path


class S3Credentials:
    """One pair of keys for all clients of a process; another one is used with the next request.

    Attributes:
        for_clients: what aiobotocore asks for the keys each time that it signs.
        version: how many pairs there have been: what a request that is under way was signed with.
    """

    def __init__(
        self, pair: KeyPair, files: _Files | None, role: AioCredentials | None = None
    ) -> None:
        self.for_clients = role or AioCredentials(pair.access_key, pair.secret_key)
        self.version = 0
        self._pair = pair
        self._files = files
        self._role = role
        self._reading = asyncio.Lock()

    @classmethod
    async def of(cls, settings: S3Settings) -> S3Credentials:
        """The pair that the settings hold, or that is where they say.

        Raises:
            KeysUnreadable: a file is missing or holds no key, or AWS gives none.
        """
        if settings.aws_credentials:
            role = await _role()
            return cls(await _pair_of(role), None, role)
        if settings.access_key_file is not None and settings.secret_key_file is not None:
            files = _Files(settings.access_key_file, settings.secret_key_file)
            return cls(await _stable_pair(files), files)
        assert settings.access_key is not None, "the settings see to it"
        assert settings.secret_key is not None, "the settings see to it"
        return cls(KeyPair(settings.access_key, settings.secret_key.get_secret_value()), None)

    async def pair(self) -> KeyPair:
        """What is signed with now; a role's is fetched anew before it ends.

        Raises:
            BotoCoreError: it has ended, and AWS gives no other.
        """
        return self._pair if self._role is None else await _pair_of(self._role)

    @property
    def from_files(self) -> bool:
        """Whether there is anything to be read again."""
        return self._files is not None

    async def reread(self) -> None:
        """Take what the files hold now; where that is no pair, keep what there is."""
        if self._files is None:
            return
        async with self._reading:
            try:
                pair = await _stable_pair(self._files)
            except KeysUnreadable as error:
                log.warning("bucket_keys_not_read", why=str(error))
                return
            if pair == self._pair:
                return
            self._pair = pair
            self.version += 1
            # Both at once: nothing awaits between the two, and aiobotocore reads both at once.
            self.for_clients.access_key = pair.access_key
            self.for_clients.secret_key = pair.secret_key
            log.info("bucket_keys_changed", access_key=f"{pair.access_key[:4]}…")


async def _role() -> AioCredentials:
    why = "variables AWS_…, a profile, the role of a pod, a container or a machine: none is here"
    try:
        found: AioCredentials | None = await AioSession().get_credentials()
    except BotoCoreError as error:
        found, why = None, str(error)
    if found is None:
        raise KeysUnreadable(f"VELRO_S3_AWS_CREDENTIALS is set, and AWS gives no keys: {why}")
    return found


async def _pair_of(role: AioCredentials) -> KeyPair:
    frozen = await role.get_frozen_credentials()
    assert frozen.access_key is not None, "what botocore calls credentials has both"
    assert frozen.secret_key is not None, "see above"
    return KeyPair(frozen.access_key, frozen.secret_key, frozen.token)


async def _stable_pair(files: _Files) -> KeyPair:
    """What two readings agree on: whoever changes one of the files is about to change the other.

    Raises:
        KeysUnreadable: a file is missing or holds no key, or they change all the while.
    """
    why = f"{files.access_key} and {files.secret_key} are being changed all the while"
    for number in range(_READINGS):
        if number:
            await asyncio.sleep(_BETWEEN_READINGS_S)
        try:
            first, second = await asyncio.to_thread(lambda: (_pair(files), _pair(files)))
        except KeysUnreadable as error:
            why = str(error)
            continue
        if first == second:
            return first
    raise KeysUnreadable(why)


def _pair(files: _Files) -> KeyPair:
    return KeyPair(_key(files.access_key), _key(files.secret_key))


def _key(path: Path) -> str:
    try:
        with path.open("rb") as file:
            read = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise KeysUnreadable(f"{path} cannot be read: {error.strerror}") from error
    # Whoever writes such a file with an editor or `echo` ends it with a new line.
    key = read.decode("ascii", errors="replace").strip()
    if not key:
        raise KeysUnreadable(f"{path} is empty: it should hold one of the bucket's keys")
    if len(read) > _MAX_BYTES or not key.isascii() or not key.isprintable() or " " in key:
        raise KeysUnreadable(f"{path} holds no key: one line of printable characters, no spaces")
    return key
