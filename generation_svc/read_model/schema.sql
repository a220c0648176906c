-- Generations as their readers want them: one row each, outputs inside.
--
-- What callers and providers wrote is kept as json, not jsonb: jsonb refuses a NUL in a text, and
-- a prompt with one must not hide its generation. Nothing is searched inside.
--
-- The fold, version 2: links are renewed, and what was lost may wait again.
create table generations (
    id text not null,
    -- How often this row changed is not known; by which event it last did, is.
    position bigint not null,
    user_id text not null,
    provider text not null,
    model text not null,
    -- Null where another service made the media and nobody asked us.
    input json,
    metadata json,

    status text not null,
    -- Paid calls that were announced.
    attempts integer not null,
    request_id text,
    failure json,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    finished_at timestamptz,

    -- A list by index: where each output came from, where it is, why not.
    outputs json not null,
    storage_state text not null,
    -- The copy could not be made at once, whatever became of it later.
    storage_failed_at timestamptz,
    -- Of the links that still matter, the one that dies first.
    earliest_link_death timestamptz,
    migration_completed_at timestamptz,
    total_migrated_size bigint,
    migration_file_count integer,

    -- Metadata that other code has always read. They follow from the state, so that they cannot
    -- say anything else: up while any output is not stored, down together once all are.
    storage_retry_needed boolean not null
        generated always as (storage_state in ('temporary', 'partial', 'lost')) stored,
    fal_urls_temporary boolean not null
        generated always as (storage_state in ('temporary', 'partial', 'lost')) stored,
    requires_background_migration boolean not null
        generated always as (storage_state in ('temporary', 'partial', 'lost')) stored,
    storage_successful boolean not null
        generated always as (storage_state = 'stored') stored,

    constraint one_row_per_generation primary key (id),
    constraint status_is_known check (
        status in ('requested', 'submitting', 'running', 'completed', 'failed', 'cancelled')
    ),
    constraint storage_state_is_known check (
        storage_state in ('none', 'temporary', 'partial', 'stored', 'lost')
    ),
    constraint completed_has_outputs check ((status = 'completed') = (storage_state <> 'none')),
    constraint failed_has_failure check ((status = 'failed') = (failure is not null)),
    constraint finished_has_moment check (
        (status in ('completed', 'failed', 'cancelled')) = (finished_at is not null)
    ),
    constraint only_what_is_not_stored_dies check (
        earliest_link_death is null or storage_state in ('temporary', 'partial', 'lost')
    ),
    constraint migrated_means_all_stored check (
        num_nulls(migration_completed_at, total_migrated_size, migration_file_count) = 3
        or (
            num_nulls(migration_completed_at, total_migrated_size, migration_file_count) = 0
            and storage_state = 'stored'
        )
    )
);

create index generations_newest on generations (created_at, id);

create index generations_of_user on generations (user_id, created_at, id);

-- Most are completed and found by the index above; these find the few among the many.
create index generations_by_other_status on generations (status, created_at, id)
    where status <> 'completed';

create index generations_not_stored on generations (storage_state, created_at, id)
    where storage_state in ('temporary', 'partial', 'lost');
