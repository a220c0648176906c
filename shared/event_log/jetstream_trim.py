"""Taking the beginning of a stream away, and who still needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shared.event_log.jetstream_api import ApiError, NoAnswer, ask
from shared.event_log.port import LogMismatch, LogUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nats.aio.client import Client

_PURGE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Behind:
    """A consumer that has not acknowledged everything.

    Attributes:
        consumer: its name.
        position: the last one up to which it has.
    """

    consumer: str
    position: int


@dataclass(frozen=True, slots=True)
class TrimmableStream:
    """One stream, over one connection.

    Attributes:
        timeout_s: the deadline of a question; taking events away has a minute.
    """

    connection: Client
    name: str
    timeout_s: float = 5.0

    async def furthest_behind(self) -> Behind | None:
        """The durable consumer that still needs the oldest event; None where all have everything.

        Readers that keep their own place are none of these: they go on in the archive.

        Raises:
            LogUnavailable: no answer.
        """
        behind: Behind | None = None
        seen = 0
        while True:
            page = await self._ask("CONSUMER.LIST", {"offset": seen}, self.timeout_s)
            consumers: list[dict[str, Any]] = page.get("consumers") or []
            for each in consumers:
                waiting = int(each["num_pending"]) + int(each["num_ack_pending"])
                if not waiting or not each["config"].get("durable_name"):
                    continue
                found = Behind(str(each["name"]), int(each["ack_floor"]["stream_seq"]))
                if behind is None or found.position < behind.position:
                    behind = found
            seen += len(consumers)
            if not consumers or seen >= int(page["total"]):
                return behind

    async def purge_until(self, position: int) -> None:
        """Take every event up to this position away, for good. A repeat changes nothing.

        Raises:
            LogUnavailable: no answer; they may be gone.
            LogMismatch: the stream does not allow it.
        """
        await self._ask("STREAM.PURGE", {"seq": position + 1}, _PURGE_S)

    async def _ask(
        self, question: str, body: Mapping[str, object], timeout_s: float
    ) -> dict[str, Any]:
        try:
            return await ask(
                self.connection, f"$JS.API.{question}.{self.name}", body, timeout_s=timeout_s
            )
        except NoAnswer as error:
            raise LogUnavailable(f"stream {self.name}: {error}") from error
        except ApiError as error:
            raise LogMismatch(f"stream {self.name}, {question}: {error}") from error
