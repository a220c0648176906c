"""Where NATS is and what lets us in: addresses, a credentials file, TLS.

Credentials files: https://docs.nats.io/using-nats/developer/connecting/creds
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import unquote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import BaseModel, ValidationError

from shared.errors import Refused
from shared.tls import shows_certificate, trusting

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from shared.settings import LogSettings

_JWT: Final = re.compile(
    r"-BEGIN NATS USER JWT-+\s+(?P<jwt>[\w-]+\.(?P<claims>[\w-]+)\.[\w-]+)\s+-+END NATS USER JWT-"
)
_SEED: Final = re.compile(r"-BEGIN USER NKEY SEED-+\s+(SU[A-Z2-7]{56})\s+-+END USER NKEY SEED-")


class AccessUnreadable(Refused):
    """The credentials file holds none. The message names it, and not what is in it."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a credentials file holds.

    Attributes:
        jwt: the user, as the account has signed it.
        key: what proves that we are that user.
        expires_at: when the server takes them no longer; None: no such time is set.
    """

    jwt: str
    key: Ed25519PrivateKey
    expires_at: datetime | None

    def sign(self, nonce: str) -> bytes:
        """The server's nonce, signed, as nats-py wants it: in base64."""
        return base64.b64encode(self.key.sign(nonce.encode()))


@dataclass(frozen=True, slots=True)
class NatsAccess:
    """Where NATS is, and what lets us in. Files are read with every connection that is made.

    Attributes:
        urls: `nats://host:port`, or `tls://` where anything else is refused; with `user:password@`
            or `token@` where the server asks for that. Several are those of one cluster.
        creds_file: of a user, as `nsc generate creds` writes it.
        ca_file: who has signed the server's certificate; None is whom the system trusts.
        cert_file, key_file: our own certificate, for a server that asks for one.
    """

    urls: tuple[str, ...]
    creds_file: Path | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def of(cls, settings: LogSettings) -> Self:
        """As the settings say."""
        return cls(
            tuple(settings.nats_url.split(",")),
            settings.nats_creds_file,
            settings.nats_ca_file,
            settings.nats_cert_file,
            settings.nats_key_file,
        )

    def __str__(self) -> str:
        """The addresses, for people: without passwords and tokens."""
        return ", ".join(_without_login(url) for url in self.urls)

    @property
    def has_password(self) -> bool:
        """Whether an address names a password or a token, which is sent as it is."""
        return any(_login(url) for url in self.urls)

    def login(self) -> dict[str, str]:
        """The user and password, or the token, of all addresses, as options of nats-py.

        nats-py takes them from the address that it connects to, as they stand there. A cluster
        tells it more addresses, and those have none.
        """
        logins = {_login(url) for url in self.urls} - {""}
        if len(logins) != 1:
            return {}
        user, colon, password = logins.pop().partition(":")
        if not colon:
            return {"token": unquote(user)}
        return {"user": unquote(user), "password": unquote(password)}

    def tls(self) -> ssl.SSLContext | None:
        """How the server is to prove itself, where the settings say more than the system does.

        Raises:
            CertificatesUnreadable: a file holds no certificate or no key.
        """
        if self.ca_file is None and self.cert_file is None:
            return None
        context = trusting("VELRO_NATS_CA_FILE", self.ca_file)
        if self.cert_file is not None:
            variables = "VELRO_NATS_CERT_FILE and VELRO_NATS_KEY_FILE"
            shows_certificate(context, variables, self.cert_file, self.key_file)
        return context

    def credentials(self) -> Credentials | None:
        """What the credentials file holds now.

        Raises:
            AccessUnreadable: it is not there, or is no such file.
        """
        if self.creds_file is None:
            return None
        try:
            return _credentials_in(self.creds_file.read_text(encoding="utf-8"))
        except OSError as error:
            said = error.strerror or error
            raise AccessUnreadable(f"VELRO_NATS_CREDS_FILE, {self.creds_file}: {said}") from error
        except ValueError as error:  # as UnicodeDecodeError is
            raise AccessUnreadable(f"VELRO_NATS_CREDS_FILE, {self.creds_file}: {error}") from error


def _credentials_in(text: str) -> Credentials:
    jwt, seed = _JWT.search(text), _SEED.search(text)
    if jwt is None or seed is None:
        raise ValueError("it holds no user JWT with its seed, as `nsc generate creds` writes")
    return Credentials(jwt["jwt"], _private_key(seed[1]), _expiry(jwt["claims"]))


class _Claims(BaseModel):
    exp: int | None = None  # in seconds since 1970


def _expiry(claims: str) -> datetime | None:
    padded = claims + "=" * (-len(claims) % 4)
    try:
        said = _Claims.model_validate_json(base64.urlsafe_b64decode(padded)).exp
    except ValidationError:
        raise ValueError("the JWT in it is none") from None  # which would show what is in it
    return datetime.fromtimestamp(said, UTC) if said else None


# The nkeys package, which nats-py has for this, comes without a wheel and with a second library
# for what `cryptography` does. The format: https://github.com/nats-io/nkeys#readme
def _private_key(seed: str) -> Ed25519PrivateKey:
    raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    held, checksum = raw[:-2], raw[-2:]
    if binascii.crc_hqx(held, 0) != int.from_bytes(checksum, "little"):
        raise ValueError("its seed is mistyped: the checksum in it is another one")
    return Ed25519PrivateKey.from_private_bytes(held[2:])


def _login(url: str) -> str:
    return url.rpartition("@")[0].rpartition("://")[2]


def _without_login(url: str) -> str:
    before, at, host = url.rpartition("@")
    scheme, found, _ = before.partition("://")
    return f"{scheme if found else ''}{found}{host}" if at else url
