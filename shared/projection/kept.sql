-- name: create_kept()#
-- What is kept of read models while their own schemas come and go with rebuilds.
create schema velro_projection;

-- Who projects a read model, or projected it last. Not ended, and another process comes: it died.
create table velro_projection.sessions (
    read_model text not null,
    process uuid not null,
    began_at timestamptz not null default now(),
    ended boolean not null default false,

    constraint one_session_a_read_model primary key (read_model)
);

-- Events that are being tried one at a time, because a process died over one of them.
create table velro_projection.attempts (
    read_model text not null,
    position bigint not null,
    attempts integer not null,
    -- Tried often enough: it is not tried again before a person asks for it.
    deadly boolean not null default false,

    constraint attempts_of_one_event primary key (read_model, position)
);

-- Events that a person decided to leave out of a read model for good.
create table velro_projection.discarded_events (
    read_model text not null,
    position bigint not null,
    subject text not null,
    generation_id text not null,
    event_type text,
    -- Why it could not be applied, and why it was given up.
    reason text not null,
    why text not null,
    discarded_by text not null,
    discarded_at timestamptz not null default now(),

    constraint discarded_once primary key (read_model, position),
    constraint discarded_for_a_reason check (why <> '')
);

-- name: kept_exists()$
-- Whether these tables are there.
select to_regclass('velro_projection.discarded_events') is not null;

-- name: lock_kept_making()^
-- Two read models of one database make them one after the other.
select pg_advisory_xact_lock(hashtextextended('velro schema velro_projection', 0));

-- name: begin_session(read_model, process)$
-- Note who projects from now on; whether whoever did before was another process that never ended.
with before as (
    select process <> :process and not ended as died
    from velro_projection.sessions where read_model = :read_model
), noted as (
    insert into velro_projection.sessions (read_model, process) values (:read_model, :process)
    on conflict (read_model) do update
    set process = excluded.process, began_at = now(), ended = false
    returning read_model
)
select coalesce((select died from before), false) from noted;

-- name: end_session(read_model, process)!
-- Note that the process let go of it alive.
update velro_projection.sessions set ended = true
where read_model = :read_model and process = :process;

-- name: count_attempt(read_model, position)$
-- Note that an event is about to be tried; the how manieth time it is.
insert into velro_projection.attempts (read_model, position, attempts)
values (:read_model, :position, 1)
on conflict (read_model, position) do update set attempts = attempts.attempts + 1
returning attempts;

-- name: call_deadly(read_model, position)!
-- Let nobody try an event again.
update velro_projection.attempts set deadly = true
where read_model = :read_model and position = :position;

-- name: survived(read_model, position)!
-- Forget the attempts at events that could be applied.
delete from velro_projection.attempts
where read_model = :read_model and position <= :position and not deadly;

-- name: not_deadly(read_model, positions)!
-- Forget what was said of events that could be applied after all.
delete from velro_projection.attempts
where read_model = :read_model and position = any(:positions::bigint[]);

-- name: deadly(read_model)
-- The events over which processes died.
select position, attempts from velro_projection.attempts
where read_model = :read_model and deadly;

-- name: discarded_positions(read_model)
-- The events that are left out.
select position from velro_projection.discarded_events where read_model = :read_model;

-- name: discarded(read_model)
-- The events that are left out, and why.
select position, subject, generation_id, event_type, reason, why, discarded_by, discarded_at
from velro_projection.discarded_events where read_model = :read_model order by position;

-- name: discard(read_model, position, subject, generation_id, event_type, reason, why, discarded_by)!
-- Leave an event out for good.
insert into velro_projection.discarded_events (
    read_model, position, subject, generation_id, event_type, reason, why, discarded_by
) values (
    :read_model, :position, :subject, :generation_id, :event_type, :reason, :why, :discarded_by
);

-- name: undo_discards(read_model, generation_id)!
-- Take the decisions on one generation back.
delete from velro_projection.discarded_events
where read_model = :read_model and generation_id = :generation_id;
