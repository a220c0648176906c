"""NATS servers that do not let everybody in, and what lets in there."""

from __future__ import annotations

import base64
import binascii
import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from velro.stack import ports
from velro.stack.nats import answers, program
from velro.stack.process import ManagedProcess

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

# What keys of NATS begin with, by their letter: https://github.com/nats-io/nkeys#readme
_SEED: Final = 18 << 3
_OPERATOR: Final = 14 << 3
_ACCOUNT: Final = 0
_USER: Final = 20 << 3


class Issuer:
    """Somebody whose word on certificates is taken where its own certificate is known."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = generate_private_key(SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an issuer of tests")])
        self.ca_file = directory / "ca.pem"
        of_itself = self._certificate(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        signed = of_itself.sign(self._key, hashes.SHA256())
        self.ca_file.write_bytes(signed.public_bytes(Encoding.PEM))

    def issue(self, name: str) -> tuple[Path, Path]:
        """A certificate, and its key, for loopback."""
        key = generate_private_key(SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        places = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        )
        builder = self._certificate(subject, key).add_extension(places, critical=False)
        certificate, key_file = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        signed = builder.sign(self._key, hashes.SHA256())
        certificate.write_bytes(signed.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key_file

    def _certificate(
        self, subject: x509.Name, key: EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))
            .not_valid_after(now + timedelta(hours=2))
        )


class Party:
    """An operator, an account or a user of NATS: who signs, and is signed for."""

    def __init__(self, kind: int) -> None:
        self._kind = kind
        self._key = Ed25519PrivateKey.generate()

    @property
    def name(self) -> str:
        """Its public key, as NATS writes it."""
        return _written(bytes((self._kind,)) + self._key.public_key().public_bytes_raw())

    @property
    def seed(self) -> str:
        """Its private one."""
        before = bytes((_SEED | self._kind >> 5, (self._kind & 31) << 3))
        return _written(before + self._key.private_bytes_raw())

    def says(self, of: Party, claims: dict[str, Any], *, expires_at: datetime | None = None) -> str:
        """A JWT of another party, or of itself."""
        said: dict[str, Any] = {
            "jti": "of-a-test",
            "iat": int(datetime.now(UTC).timestamp()),
            "iss": self.name,
            "sub": of.name,
            "nats": {"version": 2, **claims},
        }
        if expires_at is not None:
            said["exp"] = int(expires_at.timestamp())
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        text = f"{_url_safe(json.dumps(head).encode())}.{_url_safe(json.dumps(said).encode())}"
        return f"{text}.{_url_safe(self._key.sign(text.encode()))}"


def _written(key: bytes) -> str:
    checksum = binascii.crc_hqx(key, 0).to_bytes(2, "little")
    return base64.b32encode(key + checksum).decode().rstrip("=")


def _url_safe(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Tenant:
    """An account on a server that knows accounts by their operator's signature."""

    operator: Party
    account: Party
    system: Party

    @classmethod
    def new(cls) -> Tenant:
        """Nobody has seen it before."""
        return cls(Party(_OPERATOR), Party(_ACCOUNT), Party(_ACCOUNT))

    @property
    def config(self) -> str:
        """What the server's configuration says of it."""
        limits = dict.fromkeys(
            ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
        )
        account = {
            "type": "account",
            "limits": limits
            | dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
            | {"wildcards": True},
        }
        system = {"type": "account", "limits": limits}
        preloaded = {
            party.name: self.operator.says(party, claims)
            for party, claims in ((self.account, account), (self.system, system))
        }
        operator = self.operator.says(self.operator, {"type": "operator"})
        return (
            f"operator: {operator}\nsystem_account: {self.system.name}\nresolver: MEMORY\n"
            f"resolver_preload: {json.dumps(preloaded)}\n"
        )

    def credentials(self, *, expires_at: datetime | None = None) -> str:
        """The text of a credentials file of a new user."""
        user = Party(_USER)
        limits = dict.fromkeys(("subs", "data", "payload"), -1)
        claims: dict[str, Any] = {"type": "user", "pub": {}, "sub": {}, **limits}
        jwt = self.account.says(user, claims, expires_at=expires_at)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            "************************* IMPORTANT *************************\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


@dataclass(frozen=True, slots=True)
class Configured:
    """A server that runs, and where; `monitor_url` is its monitoring's."""

    server: ManagedProcess
    port: int
    monitor_url: str


@contextmanager
def configured_nats(
    directory: Path, *config: str, jetstream: str = "sync_interval: always"
) -> Generator[Configured]:
    """A server on loopback, configured beyond that as these texts say."""
    chosen = ports.choose(dict.fromkeys(("nats", "monitor")), directory / "configured-ports.json")
    monitor_url = f"http://127.0.0.1:{chosen['monitor']}"
    file = directory / "configured.conf"
    own = (
        f"listen: 127.0.0.1:{chosen['nats']}",
        f"http: 127.0.0.1:{chosen['monitor']}",
        f"jetstream {{ store_dir: configured\n{jetstream} }}",
    )
    file.write_text("\n".join((*own, *config)))
    server = ManagedProcess(
        name="configured",
        argv=[program("nats-server"), "-c", str(file)],
        directory=directory,
        cwd=directory,
        ready=lambda: answers(f"{monitor_url}/healthz"),
        owned=True,
    )
    server.start()
    try:
        yield Configured(server, chosen["nats"], monitor_url)
    finally:
        server.kill()


def speaking_tls(issuer: Issuer, *, asking_for_certificates: bool = False) -> str:
    """What makes a server speak nothing but TLS."""
    certificate, key = issuer.issue("server")
    lines = [f'cert_file: "{certificate}"', f'key_file: "{key}"']
    if asking_for_certificates:
        lines += ["verify: true", f'ca_file: "{issuer.ca_file}"']
    return "tls {\n" + "\n".join(lines) + "\n}"
