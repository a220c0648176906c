"""What the story needs of the Velro that it is played on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from velro.local import Local
    from velro.stack.addresses import S3Address


class Deployment(Protocol):
    """A Velro whose S3 service can be stopped and whose storage service can be killed."""

    @property
    def api_url(self) -> str:
        """Where generations are requested."""
        ...

    @property
    def sandbox_url(self) -> str:
        """Where the provider's books are."""
        ...

    @property
    def s3(self) -> S3Address:
        """The bucket, as it is reached from here."""
        ...

    def dsn(self, read_model: str) -> str:
        """The database of a read model."""
        ...

    def outside(self, url: str) -> str:
        """An address that the services use, as it is reached from here."""
        ...

    def stop_s3(self) -> bool:
        """Stop the S3 service; whether it is gone."""
        ...

    def start_s3(self) -> None:
        """Start it again, with its data, and wait until it answers."""
        ...

    def kill_storage(self) -> bool:
        """End the storage service with SIGKILL; whether it is gone."""
        ...

    def start_storage(self) -> None:
        """Start it again, and wait until it is ready."""
        ...


@dataclass(frozen=True, slots=True)
class LocalDeployment:
    """The processes on this machine."""

    local: Local

    @property
    def api_url(self) -> str:
        """See `Deployment.api_url`."""
        return self.local.api_url

    @property
    def sandbox_url(self) -> str:
        """See `Deployment.sandbox_url`."""
        return self.local.sandbox_url

    @property
    def s3(self) -> S3Address:
        """See `Deployment.s3`."""
        return self.local.stack.addresses.s3

    def dsn(self, read_model: str) -> str:
        """See `Deployment.dsn`."""
        addresses = self.local.stack.addresses
        return {"generation": addresses.generation_dsn, "storage": addresses.storage_dsn}[
            read_model
        ]

    def outside(self, url: str) -> str:
        """See `Deployment.outside`: all is on this machine."""
        return url

    def stop_s3(self) -> bool:
        """See `Deployment.stop_s3`."""
        self.local.stack.s3.stop()
        return not self.local.stack.s3.running

    def start_s3(self) -> None:
        """See `Deployment.start_s3`."""
        self.local.stack.s3.start()

    def kill_storage(self) -> bool:
        """See `Deployment.kill_storage`."""
        self.local.storage.kill()
        return not self.local.storage.running

    def start_storage(self) -> None:
        """See `Deployment.start_storage`."""
        self.local.storage.start()
