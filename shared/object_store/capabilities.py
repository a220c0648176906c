"""What a bucket can do, and so how objects are put into it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class BodyCheck(StrEnum):
    """What a service compares to the body of a put, refusing it where they differ."""

    CRC32 = "crc32"
    SHA256 = "sha256"
    MD5 = "md5"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class BucketCapabilities:
    """Found out by `probe.probe`; until then nothing is taken for granted.

    Attributes:
        conditional_put: `If-None-Match: *` keeps an object that is there, so that a small put
            needs no look before it. Nothing that must be right depends on it.
        body_check: how a put is held against what was meant. NONE: objects are read back.
        checksum_trailers: a checksum after the body does not become part of the object.
        multipart: large files can be sent in parts; else in one piece, up to the service's limit.
        part_check: as `body_check`, of a part.
        signed_urls: a reader without credentials can be let in for a while.
        clock_skew_s: how far the service's clock is ahead of ours.
        reasons: a sentence for each thing that is missing, and what is done instead.
    """

    conditional_put: bool
    body_check: BodyCheck
    checksum_trailers: bool
    multipart: bool
    signed_urls: bool
    clock_skew_s: float
    reasons: tuple[str, ...] = ()
    part_check: BodyCheck = BodyCheck.NONE

    @property
    def degraded(self) -> bool:
        """Whether anything is missing."""
        return bool(self.reasons)
