-- name: load(ids)
-- The rows of these generations, without what only the first event writes.
select
    id, position, user_id, provider, model, status, attempts, request_id, failure, created_at,
    updated_at, finished_at, outputs, storage_failed_at, migration_completed_at,
    total_migrated_size, migration_file_count
from generations
where id = any(:ids::text[]);

-- name: save(id, position, user_id, provider, model, input, metadata, status, attempts, request_id, failure, created_at, updated_at, finished_at, outputs, storage_state, storage_failed_at, earliest_link_death, migration_completed_at, total_migrated_size, migration_file_count)!
-- Write rows as they are now. What was asked for is written once and never again.
insert into generations (
    id, position, user_id, provider, model, input, metadata, status, attempts, request_id, failure,
    created_at, updated_at, finished_at, outputs, storage_state, storage_failed_at,
    earliest_link_death, migration_completed_at, total_migrated_size, migration_file_count
)
select * from unnest(
    :id::text[], :position::bigint[], :user_id::text[], :provider::text[], :model::text[],
    :input::json[], :metadata::json[], :status::text[], :attempts::integer[],
    :request_id::text[], :failure::json[], :created_at::timestamptz[],
    :updated_at::timestamptz[], :finished_at::timestamptz[], :outputs::json[],
    :storage_state::text[], :storage_failed_at::timestamptz[],
    :earliest_link_death::timestamptz[], :migration_completed_at::timestamptz[],
    :total_migrated_size::bigint[], :migration_file_count::integer[]
)
on conflict on constraint one_row_per_generation do update set
    position = excluded.position,
    status = excluded.status,
    attempts = excluded.attempts,
    request_id = excluded.request_id,
    failure = excluded.failure,
    updated_at = excluded.updated_at,
    finished_at = excluded.finished_at,
    outputs = excluded.outputs,
    storage_state = excluded.storage_state,
    storage_failed_at = excluded.storage_failed_at,
    earliest_link_death = excluded.earliest_link_death,
    migration_completed_at = excluded.migration_completed_at,
    total_migrated_size = excluded.total_migrated_size,
    migration_file_count = excluded.migration_file_count;

-- name: forget(generation_ids)!
-- Take rows away, for them to be made anew.
delete from generations where id = any(:generation_ids::text[]);

-- name: of_user(user_id)
-- Whose rows these are said to be.
select id as generation_id from generations where user_id = :user_id;
