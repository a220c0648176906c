"""The only place where the parts of the generation service are put together."""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from generation_svc.adapters.http.app import build_app
from generation_svc.adapters.http.changes import Changes
from generation_svc.adapters.http.ports import ObjectUrl
from generation_svc.adapters.http.reading import Reading
from generation_svc.adapters.nats_runner.beginning import Beginning
from generation_svc.adapters.nats_runner.dead_letters import DeadLetters
from generation_svc.adapters.nats_runner.delivery import Deliveries, DeliveryPolicy, Interruptions
from generation_svc.adapters.nats_runner.runner import Runner, RunnerSettings
from generation_svc.adapters.providers.fal import FalProvider, sandbox_provider, sandbox_settings
from generation_svc.adapters.providers.fal_settings import FalSettings
from generation_svc.application.accept_webhook import AcceptWebhook, webhook_token
from generation_svc.application.aftercare import Aftercare, begins_aftercare
from generation_svc.application.deciding import Decider
from generation_svc.application.finish_generation import FinishGeneration
from generation_svc.application.run_generation import RunGeneration, RunPolicy
from generation_svc.read_model.model import NAME, GenerationModel
from generation_svc.read_model.queries import GenerationQueries
from shared.archive.opening import archived_log
from shared.contracts.codec import Codec
from shared.contracts.generation_events import GenerationRequested
from shared.event_log.jetstream_stream import StreamDeclaration, ensure_stream
from shared.media.copier import media_copier
from shared.messaging.access import NatsAccess
from shared.messaging.connection import connected
from shared.messaging.jetstream import jetstream_of
from shared.object_store.attended import attended_bucket
from shared.postgres.connecting import open_pool
from shared.projection.batch import Decoding
from shared.projection.recognised_log import RecognisedLog
from shared.projection.runner import Projector, ProjectorTiming
from shared.projection.waiting import PositionWatch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from fastapi import FastAPI
    from nats.aio.client import Client

    from generation_svc.read_model.rows import GenerationRow
    from generation_svc.settings import GenerationSettings
    from shared.archive.archived_log import ArchivedLog
    from shared.contracts.facts import StoredObject
    from shared.media.settings import MediaSettings
    from shared.messaging.deliveries import DeliveringClient
    from shared.object_store.s3 import S3ObjectStore
    from shared.object_store.settings import S3Settings

SOURCE = "velro/generation_svc"

# Without webhooks nothing can tell what became of a lost call; it cannot be under way for longer
# than the adapter waits for its answer.
_NO_WEBHOOK_WAIT_S = 60.0


def now() -> datetime:
    """The service's clock."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Service:
    """The parts, connected. Nothing runs yet."""

    settings: GenerationSettings
    app: FastAPI
    projector: Projector[GenerationRow]
    watch: PositionWatch
    changes: Changes
    deliveries: Deliveries
    aftercare: Deliveries
    runner: Runner

    @classmethod
    @asynccontextmanager
    async def assembled(
        cls, settings: GenerationSettings, media: MediaSettings, bucket: S3Settings
    ) -> AsyncGenerator[Service]:
        """Put the parts together and take them down in turn.

        Raises:
            BrokerUnavailable, LogUnavailable: no NATS.
            LogMismatch: the stream has other settings.
            KeysUnreadable: the settings name files of the bucket's keys, which hold none.
        """
        dsn = settings.generation_postgres_dsn.get_secret_value()
        async with AsyncExitStack() as stack:
            connection = await stack.enter_async_context(
                connected(NatsAccess.of(settings), name="velro generation_svc")
            )
            dead_letters = await log_ready(connection, settings)
            pool = await open_pool(dsn, schema=NAME, application_name="velro generation_svc")
            stack.push_async_callback(pool.close)
            store = await stack.enter_async_context(attended_bucket(bucket, sweeping=False))
            copier = await stack.enter_async_context(media_copier(media, store))
            providers = _providers(settings)
            for provider in providers.values():
                stack.push_async_callback(provider.aclose)

            log = await stack.enter_async_context(archived_log(connection, settings))
            projector = Projector(
                dsn,
                log,
                GenerationModel(),
                Decoding(settings.subjects),
                timing=ProjectorTiming(
                    attempts=settings.projector_attempts,
                    fold_limit_s=settings.projector_fold_limit_s,
                ),
                whole=log.see_that_it_is_whole,
            )
            recognised = RecognisedLog(log, projector.other_log)
            decider = Decider(recognised, clock=now, source=SOURCE)
            finish = FinishGeneration(decider, copier, settings.store_budget_s)
            interruptions = Interruptions()
            deliver = partial(
                Deliveries,
                codec=Codec(),
                dead_letters=dead_letters,
                interruptions=interruptions,
                policy=DeliveryPolicy(settings.runner_ack_wait_s, settings.runner_max_deliveries),
            )
            deliveries = deliver(
                run=RunGeneration(
                    decider=decider,
                    finish=finish,
                    providers=providers,
                    webhook_url=partial(_webhook_url, settings),
                    policy=_run_policy(settings),
                    pause=interruptions.pause,
                ),
                begins=lambda event: isinstance(event, GenerationRequested),
            )
            deleting = _deleting(settings, providers)
            aftercare = deliver(
                run=Aftercare(decider, recognised, providers, deleting, interruptions.pause),
                begins=partial(begins_aftercare, deleting=bool(deleting)),
            )
            runner = Runner(
                RunnerSettings(
                    NatsAccess.of(settings), settings.stream, max_workers=settings.runner_workers
                ),
                settings.subjects,
                deliveries,
                aftercare,
                dead_letters,
                Beginning(pool, recognised),
            )
            watch = PositionWatch(dsn, NAME)
            reading = Reading(GenerationQueries(pool), watch)
            changes = Changes(reading)
            app = build_app(
                decider=decider,
                log=log,
                reading=reading,
                changes=changes,
                object_urls=partial(_object_url, store, bucket),
                accept_webhook=AcceptWebhook(
                    finish, providers, _webhook_secret(settings), clock=now
                ),
                providers=tuple(providers),
                readiness=partial(_readiness, connection, log, projector, runner),
                clock=now,
            )
            yield cls(settings, app, projector, watch, changes, deliveries, aftercare, runner)


async def log_ready(connection: Client, settings: GenerationSettings) -> DeadLetters:
    """See that the log's stream and the two beside it are there.

    Raises:
        LogUnavailable: no answer.
        LogMismatch: the stream has other settings.
    """
    await ensure_stream(
        connection,
        StreamDeclaration.of(settings),
    )
    dead_letters = DeadLetters(jetstream_of(connection), settings.stream, settings.subject_root)
    await dead_letters.ensure(replicas=settings.log_replicas)
    return dead_letters


def _providers(settings: GenerationSettings) -> dict[str, FalProvider]:
    providers: dict[str, FalProvider] = {}
    if settings.fal_key is not None:
        providers["fal"] = FalProvider(
            FalSettings(
                key=settings.fal_key,
                webhook_user_id=settings.fal_user_id,
                object_lifetime_s=settings.fal_object_lifetime_s,
                admin_key=settings.fal_admin_key,
            )
        )
    if settings.sandbox_url is not None:
        providers["sandbox"] = sandbox_provider(
            sandbox_settings(str(settings.sandbox_url), settings.sandbox_key)
        )
    return providers


def _deleting(settings: GenerationSettings, providers: Mapping[str, FalProvider]) -> frozenset[str]:
    """The providers that are asked to delete their copy once all is stored."""
    if not settings.delete_sources:
        return frozenset()
    return frozenset(name for name, each in providers.items() if each.traits.deletes_sources)


def _webhook_secret(settings: GenerationSettings) -> bytes:
    if settings.webhook_secret is None:
        # No callback URL was ever given out, so none is to be believed.
        return secrets.token_bytes(32)
    return settings.webhook_secret.get_secret_value().encode()


def _webhook_url(settings: GenerationSettings, provider: str, generation_id: str) -> str | None:
    if settings.webhook_base_url is None:
        return None
    token = webhook_token(_webhook_secret(settings), provider, generation_id)
    base = str(settings.webhook_base_url).rstrip("/")
    return f"{base}/v1/webhooks/{provider}/{generation_id}/{token}"


def _run_policy(settings: GenerationSettings) -> RunPolicy:
    without_webhooks = settings.webhook_base_url is None
    wait_s = settings.run_unknown_wait_s
    return RunPolicy(
        first_poll_s=settings.run_first_poll_s,
        longest_poll_s=settings.run_longest_poll_s,
        max_run_s=settings.run_max_s,
        unknown_wait_s=min(wait_s, _NO_WEBHOOK_WAIT_S) if without_webhooks else wait_s,
        max_submissions=settings.run_max_submissions,
    )


async def _object_url(store: S3ObjectStore, bucket: S3Settings, stored: StoredObject) -> ObjectUrl:
    signed = bucket.url_mode == "signed"
    expires_at = now() + timedelta(seconds=bucket.urls_live_s) if signed else None
    return ObjectUrl(await store.url(stored), expires_at)


async def _readiness(
    connection: DeliveringClient,
    log: ArchivedLog,
    projector: Projector[GenerationRow],
    runner: Runner,
) -> Mapping[str, str | None]:
    projection = await projector.health()
    return {
        "nats": connection.problem,
        "log": "no answer" if projection.log_end is None else log.problem,
        "projector": projection.problem,
        "runner": runner.health.problem,
    }
