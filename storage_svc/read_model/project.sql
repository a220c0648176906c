-- name: load(generation_ids)
-- The outputs of these generations, in order.
select
    generation_id, output_index, position, user_id, provider, source_url, dies_at, turn, state,
    attempts, next_attempt_at, reason, detail, failed_at, bucket, object_key, size_bytes, sha256,
    media_type, took_s, settled_at, first_dies_at, link, asked, losses, as_is, rejected
from backlog
where generation_id = any(:generation_ids::text[])
order by generation_id, output_index;

-- name: save(generation_id, output_index, position, user_id, provider, source_url, source_host, dies_at, turn, state, attempts, next_attempt_at, reason, detail, failed_at, bucket, object_key, size_bytes, sha256, media_type, took_s, settled_at, first_dies_at, link, asked, losses, as_is, rejected)!
-- Write outputs as they are now. A row without a turn is new and takes the next one of its user.
-- What changes nothing is not written; a new outcome ends the lease that brought it. Nor is it so
-- much as locked (an upsert locks what it meets, also where it changes nothing): whoever leases
-- skips locked rows, so one output's outcome would hold the turn of its siblings back.
insert into backlog (
    generation_id, output_index, position, user_id, provider, source_url, source_host, dies_at,
    turn, state, attempts, next_attempt_at, reason, detail, failed_at, bucket, object_key,
    size_bytes, sha256, media_type, took_s, settled_at, first_dies_at, link, asked, losses, as_is,
    rejected, ready
)
select
    generation_id, output_index, position, user_id, provider, source_url, source_host, dies_at,
    coalesce(
        turn,
        coalesce(
            (
                select max(earlier.turn) + 1
                from backlog as earlier
                where earlier.user_id = written.user_id
                    and earlier.first_deadline = date_bin(
                        interval '1 second',
                        coalesce(written.first_dies_at, written.dies_at),
                        timestamptz '2000-01-01 00:00:00+00'
                    )
            ),
            0
        )
        + row_number() over (
            partition by
                turn is null,
                user_id,
                date_bin(
                    interval '1 second',
                    coalesce(first_dies_at, dies_at),
                    timestamptz '2000-01-01 00:00:00+00'
                )
            order by position, output_index
        )
        - 1
    ),
    state, attempts, next_attempt_at, reason, detail, failed_at, bucket, object_key,
    size_bytes, sha256, media_type, took_s, settled_at, first_dies_at, link, asked, losses, as_is,
    rejected,
    state = 'pending' and attempts = 0
from unnest(
    :generation_id::text[], :output_index::integer[], :position::bigint[], :user_id::text[],
    :provider::text[], :source_url::text[], :source_host::text[], :dies_at::timestamptz[],
    :turn::bigint[], :state::text[], :attempts::integer[], :next_attempt_at::timestamptz[],
    :reason::text[], :detail::text[], :failed_at::timestamptz[], :bucket::text[],
    :object_key::text[], :size_bytes::bigint[], :sha256::text[], :media_type::text[],
    :took_s::double precision[], :settled_at::timestamptz[], :first_dies_at::timestamptz[],
    :link::integer[], :asked::integer[], :losses::integer[], :as_is::boolean[], :rejected::text[]
) as written (
    generation_id, output_index, position, user_id, provider, source_url, source_host, dies_at,
    turn, state, attempts, next_attempt_at, reason, detail, failed_at, bucket, object_key,
    size_bytes, sha256, media_type, took_s, settled_at, first_dies_at, link, asked, losses, as_is,
    rejected
)
where not exists (
    select from backlog as same
    where same.generation_id = written.generation_id
        and same.output_index = written.output_index
        and (
            same.state, same.attempts, same.next_attempt_at, same.reason, same.detail, same.link,
            same.asked, same.as_is, same.rejected
        ) is not distinct from (
            written.state, written.attempts, written.next_attempt_at, written.reason,
            written.detail, written.link, written.asked, written.as_is, written.rejected
        )
)
on conflict on constraint one_row_per_output do update set
    source_url = excluded.source_url,
    source_host = excluded.source_host,
    dies_at = excluded.dies_at,
    first_dies_at = excluded.first_dies_at,
    state = excluded.state,
    attempts = excluded.attempts,
    next_attempt_at = excluded.next_attempt_at,
    reason = excluded.reason,
    detail = excluded.detail,
    failed_at = excluded.failed_at,
    bucket = excluded.bucket,
    object_key = excluded.object_key,
    size_bytes = excluded.size_bytes,
    sha256 = excluded.sha256,
    media_type = excluded.media_type,
    took_s = excluded.took_s,
    settled_at = excluded.settled_at,
    link = excluded.link,
    asked = excluded.asked,
    losses = excluded.losses,
    as_is = excluded.as_is,
    rejected = excluded.rejected,
    ready = case
        when (backlog.state, backlog.attempts) = (excluded.state, excluded.attempts)
            then backlog.ready
        else false
    end,
    lease_owner = case
        when (backlog.state, backlog.attempts) = (excluded.state, excluded.attempts)
            then backlog.lease_owner
    end,
    lease_until = case
        when (backlog.state, backlog.attempts) = (excluded.state, excluded.attempts)
            then backlog.lease_until
    end;

-- name: forget(generation_ids)!
-- Take rows away, for them to be made anew. Whoever works on one of them loses the lease.
delete from backlog where generation_id = any(:generation_ids::text[]);

-- name: of_user(user_id)
-- Whose rows these are said to be.
select distinct generation_id from backlog where user_id = :user_id;
