"""Work that could not be done however often it was tried, kept for a person to see and retry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from nats.js.api import RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import NotFoundError
from pydantic import AwareDatetime, BaseModel, ConfigDict

from shared.errors import Refused
from shared.messaging.jetstream import ensure_stream

if TYPE_CHECKING:
    from nats.js import JetStreamContext

RUNNER = "runner"


class NoSuchDeadLetter(Refused):
    """No dead letter is kept for this generation."""


class DeadLetter(BaseModel):
    """What is known of work that was given up.

    Attributes:
        position: of the event that asked for the work, in the log; 0 where a person asked.
        deliveries: how often it was tried.
        reason: the kind of the last error; `detail` is its sentence.
    """

    model_config = ConfigDict(frozen=True)

    generation_id: str
    position: int
    deliveries: int
    reason: str
    detail: str
    at: AwareDatetime


@dataclass(frozen=True, slots=True)
class DeadLetters:
    """Two small streams beside the log: what was given up, and what is to be tried again.

    One dead letter a generation: the newest replaces the one before.
    """

    jetstream: JetStreamContext
    stream: str
    subject_root: str

    @property
    def retry_stream(self) -> str:
        """Holds retries until the runner has taken them."""
        return f"{self.stream}_RETRY"

    @property
    def retry_subjects(self) -> str:
        """What the runner listens to beside the log."""
        return f"{self.subject_root}.retry.{RUNNER}.*"

    @property
    def _dead_stream(self) -> str:
        return f"{self.stream}_DEAD"

    def _dead_subject(self, generation_id: str) -> str:
        return f"{self.subject_root}.dead.{RUNNER}.{generation_id}"

    async def ensure(self, *, replicas: int = 1) -> None:
        """Create the streams where they are missing, with as many replicas as the log has."""
        await ensure_stream(
            self.jetstream,
            StreamConfig(
                name=self._dead_stream,
                subjects=[self._dead_subject("*")],
                storage=StorageType.FILE,
                max_msgs_per_subject=1,
                allow_direct=True,
                num_replicas=replicas,
            ),
        )
        await ensure_stream(
            self.jetstream,
            StreamConfig(
                name=self.retry_stream,
                subjects=[self.retry_subjects],
                storage=StorageType.FILE,
                retention=RetentionPolicy.WORK_QUEUE,
                max_msgs_per_subject=1,
                num_replicas=replicas,
            ),
        )

    async def park(self, letter: DeadLetter) -> None:
        """Keep a dead letter. Returns when the stream has it on disk."""
        await self.jetstream.publish(
            self._dead_subject(letter.generation_id),
            letter.model_dump_json().encode(),
            stream=self._dead_stream,
        )

    async def count(self) -> int:
        """How many are kept."""
        info = await self.jetstream.stream_info(self._dead_stream)
        return info.state.messages

    async def all(self) -> list[DeadLetter]:
        """Every dead letter, by generation id."""
        info = await self.jetstream.stream_info(
            self._dead_stream, subjects_filter=self._dead_subject("*")
        )
        subjects = sorted((info.state.subjects or {}).keys())
        return [await self.get(subject.rpartition(".")[2]) for subject in subjects]

    async def get(self, generation_id: str) -> DeadLetter:
        """One dead letter.

        Raises:
            NoSuchDeadLetter: none is kept for this generation.
        """
        try:
            message = await self.jetstream.get_last_msg(
                self._dead_stream, self._dead_subject(generation_id), direct=True
            )
        except NotFoundError as error:
            raise NoSuchDeadLetter(f"no dead letter is kept for {generation_id}") from error
        return DeadLetter.model_validate_json(message.data or b"")

    async def retry(self, generation_id: str) -> None:
        """Send the work again, then forget the dead letter; in this order, so that none is lost.

        Raises:
            NoSuchDeadLetter: none is kept for this generation.
        """
        letter = await self.get(generation_id)
        await self.jetstream.publish(
            f"{self.subject_root}.retry.{RUNNER}.{generation_id}",
            letter.model_dump_json().encode(),
            stream=self.retry_stream,
        )
        await self.jetstream.purge_stream(
            self._dead_stream, subject=self._dead_subject(generation_id)
        )
