"""What the sandbox saw and did, for tests and the demo to hold Velro's story against."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from velro.sandbox.media import MediaShelf
    from velro.sandbox.work import Work
    from velro.sandbox.work_queue import WorkQueue


class OutputStats(BaseModel):
    """One output: its link, its bytes, and what was asked of it."""

    model_config = ConfigDict(frozen=True)

    url: str
    sha256: str
    size_bytes: int
    media_type: str
    expires_at: float
    alive: bool
    downloads: int
    answers: dict[int, int]


class RequestStats(BaseModel):
    """One request that was taken.

    Attributes:
        origin: who asked: the generation's id, else the callback URL, else the body's sha256.
        status: the HTTP status of its result, once there is one.
        webhook_tries: how many tries its callback took; None: not delivered.
        asked_status: how often it was polled.
    """

    model_config = ConfigDict(frozen=True)

    request_id: str
    origin: str
    model: str
    state: str
    status: int | None
    cancelled: bool
    webhook_tries: int | None
    asked_status: int
    outputs: tuple[OutputStats, ...]


class Stats(BaseModel):
    """Everything at once. `posted` counts submissions that came, `taken` those that are billed."""

    model_config = ConfigDict(frozen=True)

    posted: dict[str, int]
    taken: dict[str, int]
    requests: tuple[RequestStats, ...]

    def of(self, origin: str) -> tuple[RequestStats, ...]:
        """The requests of one generation."""
        return tuple(each for each in self.requests if each.origin == origin)


@dataclass(slots=True)
class _Seen:
    posted: int = 0
    taken: int = 0


class Ledger:
    """Counts by origin, and how often a fault has struck, for the newest `bound` of each."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._struck: OrderedDict[tuple[str, str], int] = OrderedDict()

    def note_posted(self, origin: str) -> None:
        """A submission came."""
        self._of(origin).posted += 1

    def note_taken(self, origin: str) -> None:
        """It was taken, so it is paid for."""
        self._of(origin).taken += 1

    def strikes(self, fault: str, subject: str, times: int | None) -> bool:
        """Whether this fault strikes this subject once more; counts that it did."""
        if times is None:
            return True
        key = (fault, subject)
        struck = self._struck.get(key, 0)
        if struck >= times:
            return False
        self._struck[key] = struck + 1
        self._struck.move_to_end(key)
        while len(self._struck) > self._bound:
            self._struck.popitem(last=False)
        return True

    def stats(self, queue: WorkQueue, shelf: MediaShelf) -> Stats:
        """The books as they stand."""
        return Stats(
            posted={origin: seen.posted for origin, seen in self._seen.items()},
            taken={origin: seen.taken for origin, seen in self._seen.items() if seen.taken},
            requests=tuple(request_stats(work, shelf) for work in queue.works.values()),
        )

    def _of(self, origin: str) -> _Seen:
        seen = self._seen.setdefault(origin, _Seen())
        while len(self._seen) > self._bound:
            self._seen.popitem(last=False)
        return seen


def request_stats(work: Work, shelf: MediaShelf) -> RequestStats:
    """One request's page of the books."""
    return RequestStats(
        request_id=work.request_id,
        origin=work.origin,
        model=work.model,
        state=work.state,
        status=None if work.answer is None else work.answer.status,
        cancelled=work.cancelled,
        webhook_tries=work.webhook_tries,
        asked_status=work.asked_status,
        outputs=tuple(
            OutputStats(
                url=f"{work.base_url}/files/{medium.token}",
                sha256=medium.sha256,
                size_bytes=medium.size_bytes,
                media_type=medium.media_type,
                expires_at=medium.expires_at,
                alive=shelf.find(medium.token) is not None,
                downloads=downloads.asked
                if (downloads := shelf.downloads.get(medium.token))
                else 0,
                answers=dict(downloads.answers) if downloads else {},
            )
            for medium in work.media
        ),
    )
