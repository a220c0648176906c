"""The four acts of the demo."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from shared.contracts.generation_events import StorageFailed
from shared.contracts.storage_events import MediaStored, MigrationAttemptFailed
from velro.client import ApiAway
from velro.demo.world import kinds
from velro.read_models import ReadModelName
from velro.replaying import replay_with_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from velro.client import Generation, Requested
    from velro.demo.claims import Claims
    from velro.demo.world import World

HEALTHY: Final = 8
DURING_THE_OUTAGE: Final = 16
STORAGE_WORKERS: Final = 2
_DEADLINE_S: Final = 60.0
_PROMPTS: Final = (
    "a lighthouse in a storm",
    "a fox in fresh snow",
    "an orchard at dusk",
    "a harbour before sunrise",
    "a desert under stars",
    "a tram in the rain",
    "a greenhouse in winter",
    "a bridge in fog",
)


class Acts:
    """Plays the acts in order, on one world."""

    def __init__(self, world: World, claims: Claims, console: Console) -> None:
        self._world = world
        self._claims = claims
        self._console = console
        self._random = random.Random(7)  # noqa: S311 - the same story each time

    async def healthy(self) -> list[Generation]:
        """Act 1: storage works, and URLs are permanent from the start."""
        done = await self._generate("generating", HEALTHY, user="ada")
        outputs = sum(len(found.outputs) for found in done)
        self._claims.counted(
            "generations COMPLETED", found=sum(f.status == "completed" for f in done), of=HEALTHY
        )
        self._claims.counted(
            "outputs with a permanent URL at once",
            found=sum(output.stored for found in done for output in found.outputs),
            of=outputs,
        )
        self._claims.claim(
            "no flag is set", holds=not any(_flags(found) for found in done), seen="of three"
        )
        await self._same_bytes("the permanent URLs give the provider's bytes (sha256)", done)
        return done

    async def outage(self) -> list[Generation]:
        """Act 2: the S3 server is stopped, and nobody's generation fails for it."""
        stopped = await asyncio.to_thread(self._world.deployment.stop_s3)
        self._claims.claim("the S3 server is stopped", holds=stopped)
        done = await self._generate("generating without storage", DURING_THE_OUTAGE, user="grace")
        count = DURING_THE_OUTAGE
        self._claims.counted(
            "generations COMPLETED all the same",
            found=sum(found.status == "completed" for found in done),
            of=count,
        )
        await self._same_bytes("the temporary URLs work, with the provider's bytes", done)
        self._claims.counted(
            "generations with all three flags set",
            found=sum(len(_flags(found)) == 3 for found in done),  # noqa: PLR2004 - three flags
            of=count,
        )
        histories = [await self._world.api.events(found.id) for found in done]
        self._claims.counted(
            "generations with StorageFailed in the log",
            found=sum(bool(kinds(history, StorageFailed.type)) for history in histories),
            of=count,
        )
        return done

    async def recovery(self, waiting: Sequence[Generation]) -> list[Generation]:
        """Act 3: the storage service is killed at work, S3 comes back, and the backlog drains."""
        await self._attempts_were_made(waiting)
        killed = await asyncio.to_thread(self._world.deployment.kill_storage)
        self._claims.claim("the storage service was killed (SIGKILL) while it worked", holds=killed)
        held = await self._world.leased()
        await self._retries_are_due(waiting)
        await asyncio.to_thread(self._world.deployment.start_s3)
        await asyncio.to_thread(self._world.deployment.start_storage)
        done = await self._stored(waiting)
        outputs = [output for found in done for output in found.outputs]
        self._claims.counted(
            "outputs with a permanent URL",
            found=sum(output.stored for output in outputs),
            of=len(outputs),
        )
        self._claims.counted(
            "generations with all flags cleared",
            found=sum(f.metadata.storage_successful and not _flags(f) for f in done),
            of=len(done),
        )
        await self._soonest_death_first(waiting, held)
        await self._same_bytes("the permanent URLs give the provider's bytes (sha256)", done)
        return done

    async def everything_once(self, done: Sequence[Generation]) -> None:
        """After act 3: the bucket and the log agree, one to one."""
        objects = await self._world.objects()
        outputs = [output for found in done for output in found.outputs]
        served = [digest for found in done for digest in await self._world.served(found)]
        self._claims.claim(
            "every output is one object, and there are no others",
            holds=len(objects) == len(outputs) and sorted(objects.values()) == sorted(served),
            seen=f"{len(objects)} objects, {len(outputs)} outputs",
        )
        paid = [await self._world.paid_calls(found) for found in done]
        self._claims.claim(
            "every generation was paid for once",
            holds=set(paid) == {1},
            seen=f"{sum(paid)} paid calls for {len(paid)} generations",
        )

    async def replayed(self) -> None:
        """Act 4: both read models are thrown away and come back from the log."""
        for name in ReadModelName:
            before = await self._world.rows(name)
            count = sum(len(rows) for rows in before.values())
            await self._world.drop(name)
            await replay_with_bars([name], self._console, from_archive=False)
            after = await self._world.rows(name)
            self._claims.claim(
                f"the {name} read model was dropped, replayed, and has the same rows",
                holds=before == after and count > 0,
                seen=f"{count} rows",
            )

    async def _generate(self, what: str, count: int, *, user: str) -> list[Generation]:
        lifetimes = [600 + 30 * number for number in range(count)]
        self._random.shuffle(lifetimes)
        with _bar(self._console) as progress:
            task = progress.add_task(what, total=count)

            async def one(number: int) -> Generation:
                requested = await self._world.api.request(
                    user_id=user,
                    provider="sandbox",
                    model="sandbox/painter",
                    input_={
                        "prompt": _PROMPTS[number % len(_PROMPTS)],
                        "seed": number,
                        "num_images": 1 + number % 3,
                        "output_format": ("png", "jpeg")[number % 2],
                        "image_size": {"width": 384, "height": 384},
                        "sandbox": {"render_s": 0.3, "link_lifetime_s": lifetimes[number]},
                    },
                    idempotency_key=f"{user}-{number}",
                )
                finished = await self._watched(requested, until="finished")
                progress.advance(task)
                return finished

            async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as running:
                tasks = [running.create_task(one(number)) for number in range(count)]
        return [task.result() for task in tasks]

    async def _stored(self, waiting: Sequence[Generation]) -> list[Generation]:
        with _bar(self._console) as progress:
            task = progress.add_task("copying what waited", total=len(waiting))

            async def one(generation: Generation) -> Generation:
                found = await self._watched(generation, until="stored")
                progress.advance(task)
                return found

            async with asyncio.timeout(_DEADLINE_S), asyncio.TaskGroup() as running:
                tasks = [running.create_task(one(generation)) for generation in waiting]
        return [task.result() for task in tasks]

    async def _watched(self, what: Requested | Generation, *, until: str) -> Generation:
        found: Generation | None = None
        async for seen in self._world.api.watch(what, until=until):
            found = seen
        if found is None:
            raise ApiAway(f"the watch of {what.id} ended without a word")
        return found

    async def _same_bytes(self, sentence: str, done: Sequence[Generation]) -> None:
        served = [await self._world.served(found) for found in done]
        fetched = [await self._world.fetched(found) for found in done]
        same = sum(
            given == made
            for made_all, given_all in zip(served, fetched, strict=True)
            for made, given in zip(made_all, given_all, strict=True)
        )
        self._claims.counted(sentence, found=same, of=sum(len(each) for each in served))

    async def _attempts_were_made(self, waiting: Sequence[Generation]) -> None:
        async with asyncio.timeout(_DEADLINE_S):
            # Another process makes the attempts, so there is no event to wait for.
            while not await self._failed_attempts(waiting):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.1)

    async def _retries_are_due(self, waiting: Sequence[Generation]) -> None:
        """Wait out the last announced retry, so that only death decides who comes first."""
        announced = [
            datetime.fromisoformat(event["data"]["retry_at"])
            for event in await self._failed_attempts(waiting)
        ]
        left_s = (max(announced) - datetime.now(UTC)).total_seconds()
        with self._console.status(f"waiting {left_s:.0f} s for the last retry to be due"):
            await asyncio.sleep(max(0.0, left_s))

    async def _failed_attempts(self, waiting: Sequence[Generation]) -> list[dict[str, Any]]:
        return [
            event
            for generation in waiting
            for event in kinds(
                await self._world.api.events(generation.id), MigrationAttemptFailed.type
            )
        ]

    async def _soonest_death_first(
        self, waiting: Sequence[Generation], held: set[tuple[str, int]]
    ) -> None:
        """Each copy began when no output but those being copied had an earlier death.

        The beginnings count, not the ends: a copy that takes long is overtaken, and rightly.
        What the killed process held stays with it until its lease ends, and has no turn before.
        """
        stored: list[tuple[datetime, datetime, bool]] = []
        for generation in waiting:
            deaths = {output.index: output.expires_at for output in generation.outputs}
            for event in kinds(await self._world.api.events(generation.id), MediaStored.type):
                index = event["data"]["index"]
                death = deaths[index]
                assert death is not None, "a temporary output has a death"
                # Deaths within one second are equal: among them users take turns.
                second = death.replace(microsecond=0)
                took = timedelta(seconds=event["data"]["took_s"])
                began = datetime.fromisoformat(event["time"]) - took
                stored.append((began, second, (generation.id, index) in held))
        outputs = sum(len(generation.outputs) for generation in waiting)
        self._claims.counted("outputs with exactly one MediaStored", found=len(stored), of=outputs)
        in_order = [death for _, death, was_held in sorted(stored) if not was_held]
        overtaken = max(
            sum(later < death for later in in_order[place + 1 :])
            for place, death in enumerate(in_order)
        )
        self._claims.claim(
            "the soonest-dying link came first",
            holds=overtaken < STORAGE_WORKERS and len(held) <= STORAGE_WORKERS,
            seen=f"at most {overtaken} overtaken, by {STORAGE_WORKERS} workers at once; "
            f"{len(held)} held by the killed process",
        )


def _flags(found: Generation) -> list[str]:
    names = ("storage_retry_needed", "fal_urls_temporary", "requires_background_migration")
    return [name for name in names if getattr(found.metadata, name)]


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("  {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
