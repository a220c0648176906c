"""Where the bucket is, from the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, HttpUrl, PositiveInt, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.settings import BytesPerSecond, NotEmpty, Seconds, UnsetWhenEmpty


class S3Settings(BaseSettings):
    """The team's own bucket, each setting as `VELRO_S3_<NAME>`.

    Attributes:
        endpoint_url: the service; None: AWS itself.
        ca_file: who has signed the service's certificate; the system's own where not set.
        public_endpoint_url: the same service as readers outside see it, for signed URLs.
        access_key, secret_key: the keys themselves; or:
        aws_credentials: they are what AWS' own chain finds: `AWS_…` variables, a profile, or the
            role of a pod, a container or a machine, whose keys are new every few hours; or:
        access_key_file, secret_key_file: files that hold them, as mounted secrets: read at start,
            on SIGHUP, and when the service refuses what they held.
        url_mode: how objects are read: by URLs signed for a while, or below a public base.
        public_base_url: what keys are appended to in public mode.
        signed_url_ttl_s: how long a signed URL works; S3 takes a week at most.
        verify: what is done after each put: `head` compares size and checksum as the service
            tells them, `full` also reads the object back and hashes it.
        path_style: the bucket in the path of its URLs; else in the name of the host.
        parts_at_once: of all large files of this process together.
        max_connections: at once.
        timeout_s: for one request to be answered, without the body's own time.
        min_bytes_per_s: how slowly a body may go to the service, or come from it.
        stale_upload_s: an upload in parts that began so long ago and is not of this process was
            left by one that is dead; longer than any upload takes.
    """

    model_config = SettingsConfigDict(env_prefix="VELRO_S3_", extra="ignore")

    endpoint_url: HttpUrl | None = None
    ca_file: Annotated[Path | None, UnsetWhenEmpty] = None
    public_endpoint_url: HttpUrl | None = None
    region: NotEmpty = "us-east-1"
    access_key: str | None = None
    secret_key: SecretStr | None = None
    access_key_file: Annotated[Path | None, UnsetWhenEmpty] = None
    secret_key_file: Annotated[Path | None, UnsetWhenEmpty] = None
    aws_credentials: Annotated[bool | None, UnsetWhenEmpty] = None
    bucket: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,255}$")] = "media"
    url_mode: Literal["signed", "public"] = "signed"
    public_base_url: HttpUrl | None = None
    signed_url_ttl_s: Annotated[PositiveInt, Field(le=604_800)] = 3600
    verify: Literal["head", "full"] = "head"
    path_style: bool = True
    parts_at_once: PositiveInt = 4
    max_connections: PositiveInt = 128
    timeout_s: Seconds = 30.0
    min_bytes_per_s: BytesPerSecond = 100_000.0
    stale_upload_s: Seconds = 86_400.0

    @property
    def urls_live_s(self) -> int:
        """How long a signed URL works for certain: no longer than what it was signed with.

        botocore fetches a role's keys anew ten minutes before they end, at the latest.
        """
        return min(self.signed_url_ttl_s, 600) if self.aws_credentials else self.signed_url_ttl_s

    @model_validator(mode="after")
    def _one_pair_of_keys(self) -> Self:
        values = (self.access_key, self.secret_key and self.secret_key.get_secret_value())
        files = (self.access_key_file, self.secret_key_file)
        given = [pair for pair in (values, files, (self.aws_credentials,)) if any(pair)]
        if len(given) == 1 and all(given[0]):
            return self
        raise ValueError(
            "the bucket needs one pair of keys: give VELRO_S3_ACCESS_KEY and VELRO_S3_SECRET_KEY, "
            "or VELRO_S3_ACCESS_KEY_FILE and VELRO_S3_SECRET_KEY_FILE, or say "
            "VELRO_S3_AWS_CREDENTIALS=true for the role that AWS gives"
        )
