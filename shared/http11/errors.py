"""What can go wrong between a request and the end of its answer."""

from __future__ import annotations


class HttpFailed(Exception):
    """There is no answer, or not all of it."""


class NotReached(HttpFailed):
    """No connection was made."""


class NotHttp(HttpFailed):
    """What came is no answer in HTTP/1.1."""


class Cut(HttpFailed):
    """The connection ended before the answer did.

    Attributes:
        unanswered: not one byte of the answer had come.
    """

    def __init__(self, detail: str, *, unanswered: bool = False) -> None:
        super().__init__(detail)
        self.unanswered = unanswered


class Silent(Cut):
    """It was ended by us, because nothing came, or went, for too long."""
