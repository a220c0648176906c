-- name: get(id)^
-- One generation as its readers see it.
select
    id, position, user_id, provider, model, input, metadata, status, attempts, request_id, failure,
    created_at, updated_at, finished_at, outputs, storage_state, storage_failed_at,
    earliest_link_death, migration_completed_at, total_migrated_size, migration_file_count,
    storage_retry_needed, fal_urls_temporary, requires_background_migration, storage_successful
from generations
where id = :id;

-- name: list_page(user_id, status, storage_state, before_at, before_id, max_rows)
-- Generations, the newest first, from below a cursor. What is null does not narrow: the planner
-- sees the values (plan_cache_mode is force_custom_plan), so each combination gets its own index.
select
    id, position, user_id, provider, model, input, metadata, status, attempts, request_id, failure,
    created_at, updated_at, finished_at, outputs, storage_state, storage_failed_at,
    earliest_link_death, migration_completed_at, total_migrated_size, migration_file_count,
    storage_retry_needed, fal_urls_temporary, requires_background_migration, storage_successful
from generations
where (:user_id::text is null or user_id = :user_id)
    and (:status::text is null or status = :status)
    and (:storage_state::text is null or storage_state = :storage_state)
    and (
        :before_at::timestamptz is null
        or (created_at, id) < (:before_at::timestamptz, :before_id::text)
    )
order by created_at desc, id desc
limit :max_rows;

-- name: positions(ids)
-- Which of the watched generations changed, for all watchers at once.
select id, position
from generations
where id = any(:ids::text[]);

-- name: unfinished(max_rows)
-- Generations that somebody has to go on with.
select id from generations
where status in ('requested', 'submitting', 'running')
limit :max_rows;

-- name: hold_tables()!
-- Keep the tables from being switched until the transaction ends.
lock table generations in access share mode;

-- name: count_since(since)^
-- What became of the generations that were asked for since a moment.
select
    count(*) as generations,
    count(*) filter (where status = 'completed') as completed,
    count(*) filter (where status = 'failed') as failed,
    count(*) filter (where status = 'cancelled') as cancelled,
    count(*) filter (where status in ('requested', 'submitting', 'running')) as unfinished,
    count(*) filter (where storage_failed_at is not null) as storage_failed,
    count(*) filter (where storage_state = 'stored') as stored,
    count(*) filter (where storage_state = 'lost') as lost
from generations
where created_at >= :since;

-- name: count_not_stored(now)^
-- The generations with a link that dies, whenever they were asked for.
select
    count(*) as generations,
    min(finished_at) as oldest_completed_at,
    min(earliest_link_death) as next_death_at,
    count(*) filter (where earliest_link_death <= :now) as dead,
    count(*) filter (
        where earliest_link_death > :now and earliest_link_death <= :now + interval '10 minutes'
    ) as within_10_minutes,
    count(*) filter (
        where earliest_link_death > :now + interval '10 minutes'
            and earliest_link_death <= :now + interval '1 hour'
    ) as within_1_hour,
    count(*) filter (
        where earliest_link_death > :now + interval '1 hour'
            and earliest_link_death <= :now + interval '1 day'
    ) as within_1_day,
    count(*) filter (where earliest_link_death > :now + interval '1 day') as later
from generations
where storage_state in ('temporary', 'partial', 'lost') and earliest_link_death is not null;
