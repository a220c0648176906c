-- name: summary(now, at_risk_factor, default_copy_s)^
-- What there is, in one look. At risk: less time than so many recent p95 copies take.
with pace as (
    select coalesce(percentile_cont(0.95) within group (order by took_s), :default_copy_s) as p95_s
    from (
        select took_s from backlog where state = 'stored' order by settled_at desc limit 1000
    ) as recent
),
pending as (
    select
        count(*) as pending,
        count(*) filter (
            where dies_at > :now
                and dies_at < :now + make_interval(secs => :at_risk_factor * pace.p95_s)
        ) as at_risk,
        count(*) filter (where dies_at <= :now) as overdue,
        count(*) filter (where lease_until > :now) as running,
        min(dies_at) as soonest_death
    from backlog, pace
    where state = 'pending'
),
others as (
    select
        count(*) filter (where state = 'awaiting_link') as awaiting_link,
        count(*) filter (where state = 'stored') as stored,
        count(*) filter (where state = 'lost') as lost,
        count(*) filter (
            where state = 'lost' and reason = 'media_type_refused' and rejected is null
        ) as quarantined,
        coalesce(sum(size_bytes) filter (where state = 'stored'), 0)::bigint as stored_bytes
    from backlog
    where state <> 'pending'
)
select * from pending, others, pace;

-- name: reasons()
-- How many wait, by what their last attempt failed for.
select coalesce(reason, 'not tried yet') as reason, count(*) as outputs
from backlog
where state = 'pending'
group by 1
order by outputs desc, reason;

-- name: waiting(now, dies_before, reason, max_rows)
-- What waits for an attempt or for a new link, the soonest death first; with a moment, only what
-- still lives and dies before it: what is counted as at risk.
select
    generation_id, output_index, user_id, provider, source_host, dies_at, attempts, state,
    next_attempt_at, reason, detail, coalesce(lease_until > :now, false) as running
from backlog
where next_attempt_at is not null
    and (
        :dies_before::timestamptz is null
        or (dies_at > :now and dies_at < :dies_before and state = 'pending')
    )
    and (:reason::text is null or reason = :reason)
order by deadline, turn
limit :max_rows;

-- name: lost(max_rows, reasons)
-- What was given up on, the latest first.
select
    generation_id, output_index, user_id, provider, source_host, dies_at, attempts, state, reason,
    coalesce(detail || '; rejected: ' || rejected, detail) as detail, settled_at
from backlog
where state = 'lost' and (:reasons::text[] is null or reason = any(:reasons))
order by settled_at desc
limit :max_rows;

-- name: quarantined(max_rows)
-- What was refused for its type and waits for a person, the soonest death first.
select
    generation_id, output_index, user_id, provider, source_url, source_host, media_type, detail,
    settled_at, dies_at
from backlog
where state = 'lost' and reason = 'media_type_refused' and rejected is null
order by deadline, turn
limit :max_rows;
