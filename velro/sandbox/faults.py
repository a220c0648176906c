"""What the sandbox can be told to do to a request, in its input or for all requests at once."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

# fal's infrastructure errors and the status each comes with
# (https://docs.fal.ai/documentation/model-apis/request-errors).
INFRASTRUCTURE_STATUSES = {
    "request_timeout": 504,
    "startup_timeout": 504,
    "runner_scheduling_failure": 503,
    "runner_connection_timeout": 503,
    "runner_disconnected": 503,
    "runner_connection_refused": 503,
    "runner_server_error": 500,
    "internal_error": 500,
}

ErrorStatus = Literal[400, 401, 402, 403, 404, 408, 409, 410, 413, 422, 429, 500, 502, 503, 504]


class Faults(BaseModel):
    """One request's instructions. What is not told is left to the defaults, then to normality.

    A `..._times` counts occurrences, one submission, request or link at a time; None: always.

    Attributes:
        queue_s: how long it waits in the queue before it may start.
        render_s: how long the work takes at least.
        link_lifetime_s: how long its links live, whatever the client preferred.
        fail: the work ends in an error of the infrastructure, or of the model (its input's fault).
        fail_type: fal's word for that error.
        fail_retryable: what `X-Fal-Retryable` says.
        submit_status: submissions are answered with this, and not taken.
        submit_retry_after: the Retry-After of that answer: seconds, or an HTTP date.
        submit: what becomes of the connection: cut before the work is taken (`drop_untaken`) or
            after it (`drop_taken`), cut inside the answer (`cut_answer`), left without an answer
            (`never_answer`), answered with a page instead of JSON (`html`), or with URLs on
            another host (`foreign_urls`).
        poll_status: status and result requests are answered with this.
        poll: the same for connections: `drop`, `never_answer`, `html`.
        media_status: downloads are answered with this.
        media_retry_after: the Retry-After of that answer.
        media: what is wrong with the bytes: a Content-Length beyond what comes
            (`announce_more`), below it (`announce_less`), a connection cut in the middle (`cut`),
            or a page of HTML under the picture's type (`html`).
        media_times: how many downloads of a link suffer from the above.
        media_type: the Content-Type told in place of the true one.
        media_bytes_per_s: how fast the bytes come.
        media_redirect: where downloads are sent on to; `self` redirects in a circle.
        renews_links: a result that is asked for after its links died comes with new ones, which
            live for so many seconds; else with the dead ones, as at fal.
        webhook: not sent at all, sent twice, signed with an unknown key, signed with a time
            outside the window, or sent before the submission is answered (`early`).
        webhook_delay_s: how long after the end of the work it is sent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    queue_s: float | None = Field(default=None, ge=0, le=3600)
    render_s: float | None = Field(default=None, ge=0, le=3600)
    link_lifetime_s: float | None = Field(default=None, ge=0)
    fail: Literal["infrastructure", "model"] | None = None
    fail_type: str | None = None
    fail_retryable: bool | None = None
    submit_status: ErrorStatus | None = None
    submit_retry_after: str | None = None
    submit: (
        Literal["drop_untaken", "drop_taken", "cut_answer", "never_answer", "html", "foreign_urls"]
        | None
    ) = None
    submit_times: int | None = Field(default=None, ge=0)
    poll_status: ErrorStatus | None = None
    poll: Literal["drop", "never_answer", "html"] | None = None
    poll_times: int | None = Field(default=None, ge=0)
    media_status: ErrorStatus | None = None
    media_retry_after: str | None = None
    media: Literal["announce_more", "announce_less", "cut", "html"] | None = None
    media_times: int | None = Field(default=None, ge=0)
    media_type: str | None = None
    media_bytes_per_s: float | None = Field(default=None, gt=0)
    media_redirect: str | None = None
    renews_links: float | None = Field(default=None, gt=0)
    webhook: Literal["withheld", "duplicated", "bad_signature", "stale", "early"] | None = None
    webhook_delay_s: float | None = Field(default=None, ge=0, le=3600)

    def over(self, defaults: Faults) -> Faults:
        """These instructions, with the defaults where nothing was told."""
        return defaults.model_copy(update=self.model_dump(exclude_unset=True))
