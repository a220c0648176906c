"""SeaweedFS as the S3 service, on loopback, telemetry off."""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import boto3  # pyright: ignore[reportMissingTypeStubs] - its stubs are a package of their own, for one call
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from velro.stack.nats import program
from velro.stack.process import ManagedProcess

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class S3Address:
    """All that a client of an S3 service needs."""

    endpoint_url: str
    access_key: str
    secret_key: str
    bucket: str
    region: str = "us-east-1"


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
        access_key, secret_key = _keys(directory / f"{name}.keys.json")
        self.address = S3Address(f"http://127.0.0.1:{s3_port}", access_key, secret_key, bucket)
        self.process = ManagedProcess(
            name=name,
            argv=[
                program("weed"),
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
            env={"AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret_key},
            ready=lambda: has_bucket(self.address),
            owned=owned,
        )


def has_bucket(address: S3Address) -> bool:
    """Whether the service answers and has the bucket."""
    try:
        s3_client(address).head_bucket(Bucket=address.bucket)
    except (BotoCoreError, ClientError):
        return False
    return True


def s3_client(address: S3Address) -> Any:  # noqa: ANN401 - boto3 makes its clients at run time
    """A plain, synchronous S3 client for looking at the bucket from outside the services."""
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
        ),
    )


def _keys(path: Path) -> tuple[str, str]:
    if not path.exists():
        with os.fdopen(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600), "w") as file:
            json.dump([secrets.token_hex(8), secrets.token_hex(20)], file)
    access_key, secret_key = json.loads(path.read_text())
    return access_key, secret_key
