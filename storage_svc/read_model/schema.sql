-- The backlog: one row for each output that was not stored when its generation completed.
-- Rows stay when they are settled, so that what became of everything can be seen and counted.
create table backlog (
    generation_id text not null,
    output_index integer not null,

    -- What the completion said; the link is the newest one.
    position bigint not null,
    user_id text not null,
    provider text not null,
    source_url text not null,
    source_host text not null,
    dies_at timestamptz not null,
    -- When the first link dies, where a new one has moved `dies_at`.
    first_dies_at timestamptz,
    -- Deadlines within one second are equal; among them users take turns.
    deadline timestamptz not null generated always as (
        date_bin(interval '1 second', dies_at, timestamptz '2000-01-01 00:00:00+00')
    ) stored,
    -- By its first link, so that it is the same whenever it is counted: how many outputs of this
    -- user with the same deadline stand before this one in the log.
    turn bigint not null,
    first_deadline timestamptz not null generated always as (
        date_bin(
            interval '1 second',
            coalesce(first_dies_at, dies_at),
            timestamptz '2000-01-01 00:00:00+00'
        )
    ) stored,

    -- What became of it.
    state text not null,
    attempts integer not null,
    next_attempt_at timestamptz,
    reason text,
    detail text,
    failed_at timestamptz,
    bucket text,
    object_key text,
    size_bytes bigint,
    sha256 text,
    media_type text,
    took_s double precision,
    settled_at timestamptz,

    -- Which request for new links brought this one (0 is the completion), and the last one made.
    link integer not null default 0,
    asked integer not null default 0,
    -- How often it was given up on, and what a person said to that.
    losses integer not null default 0,
    as_is boolean not null default false,
    rejected text,

    -- Who works on it now: written by the workers, and cleared when the log has an outcome.
    ready boolean not null,
    lease_owner text,
    lease_until timestamptz,

    constraint one_row_per_output primary key (generation_id, output_index),
    constraint state_is_known check (state in ('pending', 'awaiting_link', 'stored', 'lost')),
    constraint pending_has_next_attempt check (
        (state in ('pending', 'awaiting_link')) = (next_attempt_at is not null)
    ),
    constraint settled_has_moment check (
        (state in ('pending', 'awaiting_link')) = (settled_at is null)
    ),
    constraint awaited_was_asked_for check (state <> 'awaiting_link' or asked > link),
    constraint rejected_is_settled check (state in ('stored', 'lost') or rejected is null),
    constraint stored_has_object check (
        (state = 'stored') = (
            bucket is not null
            and object_key is not null
            and size_bytes is not null
            and sha256 is not null
        )
    ),
    constraint lost_has_reason check (state <> 'lost' or reason is not null),
    constraint lease_is_whole check ((lease_owner is null) = (lease_until is null)),
    constraint only_pending_is_worked_on check (
        state in ('pending', 'awaiting_link') or (lease_owner is null and not ready)
    )
);

-- What a worker takes next. It holds nothing that waits for its next attempt, so taking stays as
-- fast with a million rows that wait as with none.
create index backlog_by_deadline on backlog (deadline, turn) where ready;

-- What becomes ready next.
create index backlog_waiting on backlog (next_attempt_at)
where next_attempt_at is not null and not ready;

-- What may go on when the reason of its failure has gone.
create index backlog_waiting_by_reason on backlog (reason, deadline)
where state = 'pending' and not ready;

create index backlog_leased on backlog (lease_until) where lease_until is not null;

create index backlog_turns on backlog (user_id, first_deadline, turn);

create index backlog_settled on backlog (state, settled_at) where settled_at is not null;
