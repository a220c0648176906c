"""SeaweedFS as the S3 service, on loopback, telemetry off."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, cast

from velro.stack.addresses import S3Address
from velro.stack.nats import program
from velro.stack.process import ManagedProcess
from velro.stack.secret_file import secrets_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["S3Address", "SeaweedServer", "has_bucket", "s3_client", "takes_objects"]

_READY_KEY = ".velro-ready"


class SeaweedServer:
    """A SeaweedFS server with its data under `directory`, and a bucket."""

    def __init__(
        self,
        directory: Path,
        *,
        s3_port: int,
        master_port: int,
        volume_port: int,
        filer_port: int,
        admin_port: int,
        owned: bool,
        name: str = "seaweedfs",
        bucket: str = "media",
    ) -> None:
        data = directory / name
        data.mkdir(parents=True, exist_ok=True)
        keys = secrets_for(directory / f"{name}.secrets.json", ("access_key", "secret_key"))
        self.address = S3Address(
            f"http://127.0.0.1:{s3_port}", keys["access_key"], keys["secret_key"], bucket
        )
        self.process = ManagedProcess(
            name=name,
            argv=[
                program("weed"),
                "-logtostderr=true",  # otherwise into files of its own in the temporary directory
                "mini",
                f"-dir={data}",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                f"-s3.port={s3_port}",
                f"-master.port={master_port}",
                f"-volume.port={volume_port}",
                f"-filer.port={filer_port}",
                f"-admin.port={admin_port}",
                f"-bucket={bucket}",
                "-admin.ui=false",
                "-webdav=false",
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                "-master.telemetry=false",
            ],
            directory=directory,
            cwd=directory,
            env={
                "AWS_ACCESS_KEY_ID": self.address.access_key,
                "AWS_SECRET_ACCESS_KEY": self.address.secret_key,
            },
            ready=lambda: takes_objects(self.address),
            owned=owned,
        )


def has_bucket(address: S3Address) -> bool:
    """Whether the service answers to these keys and has the bucket."""
    return _does(address, lambda client: client.head_bucket(Bucket=address.bucket))


def takes_objects(address: S3Address) -> bool:
    """Whether the service stores what it is given: SeaweedFS answers a while before it does."""

    def put_and_delete(client: Any) -> None:  # noqa: ANN401 - boto3 makes its clients at run time
        client.head_bucket(Bucket=address.bucket)  # a put would make a bucket that is missing
        client.put_object(Bucket=address.bucket, Key=_READY_KEY, Body=b"ready")
        client.delete_object(Bucket=address.bucket, Key=_READY_KEY)

    return _does(address, put_and_delete)


def _does(address: S3Address, what: Callable[[Any], object]) -> bool:
    # The import takes longer than everything else here, and most who read addresses never look.
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    client = s3_client(address)
    with contextlib.closing(client):
        try:
            what(client)
        except (BotoCoreError, ClientError):
            return False
    return True


def s3_client(address: S3Address) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """A plain, synchronous S3 client for looking at the bucket from outside the services."""
    import boto3  # noqa: PLC0415  # pyright: ignore[reportMissingTypeStubs] - as above; its stubs are a package of their own
    from botocore.config import Config  # noqa: PLC0415 - as above

    return cast("Any", boto3).client(
        "s3",
        endpoint_url=address.endpoint_url,
        region_name=address.region,
        aws_access_key_id=address.access_key,
        aws_secret_access_key=address.secret_key,
        config=Config(
            connect_timeout=1,
            read_timeout=5,
            retries={"max_attempts": 0},
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            proxies={},  # a proxy from the environment is for the world outside, not for loopback
        ),
    )
