-- name: create_own()#
-- What the runner itself keeps beside a read model's tables, in the same schema.
create table projection_checkpoint (
    -- There is one row.
    singleton boolean not null default true,
    -- Which life of these tables: a rebuild has another one, so no old writer mistakes them.
    incarnation uuid not null default gen_random_uuid(),
    -- Of the SQL that made the tables.
    schema_fingerprint text not null,
    -- Of the last event whose effect is in the tables, in the log; 0 before the first.
    position bigint not null default 0,
    -- Of that event's bytes, to recognise a log that is not the one that was projected.
    event_fingerprint text,
    moved_at timestamptz not null default now(),

    constraint one_checkpoint primary key (singleton),
    constraint checkpoint_is_singleton check (singleton),
    constraint position_is_recognisable check (
        position >= 0 and (position = 0) = (event_fingerprint is null)
    )
);

-- Events that could not be applied, and every later one of the same generation.
create table parked_events (
    position bigint not null,
    subject text not null,
    generation_id text not null,
    -- Null where not even that can be read.
    event_type text,
    reason text not null,
    parked_at timestamptz not null default now(),

    constraint parked_once primary key (position)
);

create index parked_by_generation on parked_events (generation_id, position);

-- name: begin_checkpoint(schema_fingerprint)!
-- The tables are as the empty log leaves them.
insert into projection_checkpoint (schema_fingerprint) values (:schema_fingerprint);

-- name: exists_in(schema_name)$
-- Whether a schema holds a read model.
select to_regclass(format('%I.projection_checkpoint', :schema_name::text)) is not null;

-- name: lock_schema_making(schema_name)^
-- Two processes that start together make the schema one after the other.
select pg_advisory_xact_lock(hashtextextended('velro schema ' || :schema_name::text, 0));

-- name: try_activate(schema_name)$
-- Become the one active projector of a schema, for as long as this connection lives.
select pg_try_advisory_lock(hashtextextended('velro projector ' || :schema_name::text, 0));

-- name: activate(schema_name)^
-- The same, waiting as long as lock_timeout says.
select pg_advisory_lock(hashtextextended('velro projector ' || :schema_name::text, 0));

-- name: checkpoint()^
-- How far the tables are.
select incarnation, schema_fingerprint, position, event_fingerprint, moved_at
from projection_checkpoint;

-- name: move(incarnation, from_position, to_position, event_fingerprint, channel)$
-- Compare and set, and tell who waits; answers with nothing where somebody else moved it.
-- It is a writing transaction's first statement, so that a rebuild which takes this table away
-- waits for whoever is writing, or makes it wait, before either holds anything else.
with moved as (
    update projection_checkpoint
    set position = :to_position, event_fingerprint = :event_fingerprint, moved_at = now()
    where incarnation = :incarnation and position = :from_position
    returning position
)
select pg_notify(:channel, position::text) is not null from moved;

-- name: notify(channel, position)^
-- Tell who waits.
select pg_notify(:channel, :position::text);

-- name: park(position, subject, generation_id, event_type, reason)!
-- Put events aside that cannot be applied now.
insert into parked_events (position, subject, generation_id, event_type, reason)
select * from unnest(
    :position::bigint[], :subject::text[], :generation_id::text[], :event_type::text[],
    :reason::text[]
);

-- name: parked_generations()
-- The generations that have an event put aside.
select distinct generation_id from parked_events;

-- name: parked_count()$
-- How many events are put aside.
select count(*) from parked_events;

-- name: parked(generation_id)
-- What is put aside, of one generation or of all, in the log's order.
select position, subject, generation_id, event_type, reason, parked_at
from parked_events
where :generation_id::text is null or generation_id = :generation_id
order by position;

-- name: parked_first(after, most)
-- Of each generation put aside behind a position the event that began it, and how many follow.
select
    first.position, first.subject, first.generation_id, first.event_type, first.reason,
    first.parked_at, counted.events - 1 as following
from (
    select generation_id, min(position) as position, count(*) as events
    from parked_events
    group by generation_id
    having min(position) > :after
    order by min(position)
    limit :most
) as counted
join parked_events as first on first.position = counted.position
order by first.position;

-- name: hold()^
-- Keep projectors and swaps waiting until the transaction ends; where the tables are meanwhile.
select position from projection_checkpoint for update;

-- name: unpark(positions)!
-- Take back what could be applied after all.
delete from parked_events where position = any(:positions::bigint[]);

-- name: park_again(position, reason)!
-- Say anew why events are put aside.
update parked_events as parked set reason = said.reason
from unnest(:position::bigint[], :reason::text[]) as said (position, reason)
where parked.position = said.position;

-- name: supersede()!
-- Make the projector begin a new session, so that it learns what is parked now.
update projection_checkpoint set incarnation = gen_random_uuid();
