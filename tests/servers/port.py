"""What a test may ask of a server, whichever way it is run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from velro.stack.seaweedfs import S3Address


class Server(Protocol):
    """A real server that a test owns: it keeps its address and its data through a restart."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def kill(self) -> None: ...


@dataclass(frozen=True, slots=True)
class OwnNats:
    server: Server
    url: str


@dataclass(frozen=True, slots=True)
class OwnPostgres:
    server: Server
    dsn: str


@dataclass(frozen=True, slots=True)
class OwnS3:
    server: Server
    address: S3Address


class Servers(Protocol):
    """A way to get servers: from wheels, or from containers."""

    def nats(self) -> OwnNats: ...

    def postgres(self) -> OwnPostgres: ...

    def s3(self) -> OwnS3: ...

    def discard(self, server: Server) -> None:
        """End a server for good, with its data, whatever state it is in."""
        ...

    def close(self) -> None: ...
