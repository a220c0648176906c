"""Why an output could not be copied. A closed set: alerts and the retry policy read it."""

from enum import StrEnum


class ReasonCode(StrEnum):
    """One word for the cause of a failed copy."""

    BUCKET_UNAVAILABLE = "bucket_unavailable"
    CREDENTIALS_REFUSED = "credentials_refused"
    BUCKET_FULL = "bucket_full"
    SOURCE_UNAVAILABLE = "source_unavailable"
    SOURCE_EXPIRED = "source_expired"
    SOURCE_FORBIDDEN = "source_forbidden"
    TOO_LARGE = "too_large"
    TOO_SLOW = "too_slow"
    BLOCKED_ADDRESS = "blocked_address"
    MEDIA_TYPE_REFUSED = "media_type_refused"
    CHECKSUM_MISMATCH = "checksum_mismatch"
    INTERNAL = "internal"
