"""What the generation service is started with; every name is an environment variable."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AliasChoices,
    Field,
    HttpUrl,
    PositiveInt,
    SecretStr,
    model_validator,
)

from shared.settings import Dsn, LogSettings, Seconds, SecondsOrZero, UnsetWhenEmpty


class GenerationSettings(LogSettings):
    """The generation service's settings, each as `VELRO_<NAME>` (and `FAL_KEY`).

    Attributes:
        generation_postgres_dsn: its own database, with its own role.
        generation_host: the address to listen on. Callers are not authenticated: keep it private.
        generation_port: 0 takes a free one.
        store_budget_s: how long a user may wait for permanent URLs; 0: not at all.
        webhook_base_url: where providers reach this service; without it results are polled.
        webhook_secret: what callback URLs are signed with.
        runner_workers: generations run at once in this process.
        runner_ack_wait_s: work not heard of for so long is started elsewhere.
        runner_max_deliveries: tries before the work becomes a dead letter.
        run_first_poll_s: the wait before the first poll; it grows from there.
        run_longest_poll_s: what it grows to.
        run_max_s: how long a provider may take, be away, or not take it at all.
        run_unknown_wait_s: how long a webhook may take to tell what became of a paid call whose
            answer was lost. Without webhooks: how long that call may still be under way.
        run_max_submissions: paid calls for one generation, at the most; those that were certainly
            not taken are not counted.
        fal_key: turns the provider `fal` on.
        fal_user_id: fal's id of the account; callbacks for others are refused.
        fal_object_lifetime_s: how long fal is asked to keep outputs.
        fal_admin_key: what deleting at fal takes; without it `fal_key` is tried.
        delete_sources: once all of a generation is stored, ask its provider to delete its copy.
        sandbox_url: turns the provider `sandbox` on.
        sandbox_key: what the sandbox wants to be sent.
        drain_s: how long a shutdown waits for work to come to a safe point.
    """

    generation_postgres_dsn: Dsn
    generation_host: str = "127.0.0.1"
    generation_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    store_budget_s: SecondsOrZero = 5.0
    webhook_base_url: Annotated[HttpUrl | None, UnsetWhenEmpty] = None
    webhook_secret: Annotated[SecretStr | None, UnsetWhenEmpty] = None
    runner_workers: PositiveInt = 64
    runner_ack_wait_s: Seconds = 30.0
    runner_max_deliveries: PositiveInt = 10
    run_first_poll_s: Seconds = 1.0
    run_longest_poll_s: Seconds = 15.0
    run_max_s: Seconds = 3600.0
    run_unknown_wait_s: Annotated[Seconds, Field(ge=10)] = 600.0
    run_max_submissions: PositiveInt = 10
    fal_key: Annotated[SecretStr | None, UnsetWhenEmpty] = Field(
        default=None, validation_alias=AliasChoices("FAL_KEY", "VELRO_FAL_KEY")
    )
    fal_user_id: Annotated[str | None, UnsetWhenEmpty] = None
    fal_object_lifetime_s: Annotated[int, Field(ge=60)] = 7 * 24 * 3600
    fal_admin_key: Annotated[SecretStr | None, UnsetWhenEmpty] = None
    delete_sources: bool = False
    sandbox_url: Annotated[HttpUrl | None, UnsetWhenEmpty] = None
    sandbox_key: SecretStr = SecretStr("sandbox-key")
    drain_s: Seconds = 30.0

    @model_validator(mode="after")
    def _webhooks_are_signed(self) -> GenerationSettings:
        if self.webhook_base_url is not None and self.webhook_secret is None:
            raise ValueError(
                "VELRO_WEBHOOK_BASE_URL needs VELRO_WEBHOOK_SECRET, which callback URLs are "
                "signed with: any long random text, the same for every replica"
            )
        return self
