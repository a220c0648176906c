-- name: create_rebuild()#
-- What a rebuild keeps beside the tables it fills, until they take the old ones' place.
create table rebuild_origin (
    singleton boolean not null default true,
    -- Of the code that folded what is there: another one begins anew rather than mixing two folds.
    program_fingerprint text not null,

    constraint one_rebuild primary key (singleton),
    constraint rebuild_is_singleton check (singleton)
);

-- While several processes fill the tables, each those of its own generations, every one of them has
-- a checkpoint here. The one checkpoint of the tables is not ahead of any.
create table rebuild_parts (
    -- What the hash of a generation's id leaves when it is divided by the number of parts.
    part integer not null,
    parts integer not null,
    -- Of the rebuild that fills them: one that goes on has another, and no process of an earlier
    -- one writes any more.
    incarnation uuid not null,
    position bigint not null,
    event_fingerprint text,

    constraint one_row_a_part primary key (part),
    constraint part_is_one_of_them check (part between 0 and parts - 1)
);

-- name: begin_rebuild(program_fingerprint)!
-- Note by which code the tables are filled.
insert into rebuild_origin (program_fingerprint) values (:program_fingerprint);

-- name: origin()^
-- What an earlier rebuild left, if it can be recognised.
select rebuild_origin.program_fingerprint, projection_checkpoint.schema_fingerprint
from rebuild_origin, projection_checkpoint;

-- name: begin_parts(parts, incarnation, position, event_fingerprint)!
-- Divide what comes after the checkpoint.
insert into rebuild_parts (part, parts, incarnation, position, event_fingerprint)
select part, :parts::integer, :incarnation::uuid, :position::bigint, :event_fingerprint::text
from generate_series(0, :parts::integer - 1) as part;

-- name: parts()
-- How far each part is, the one that is furthest behind first.
select part, parts, position, event_fingerprint from rebuild_parts order by position, part;

-- name: take_parts_over(incarnation)!
-- Let nobody write to them who did before. Waits for one that is writing.
update rebuild_parts set incarnation = :incarnation;

-- name: move_part(part, incarnation, from_position, to_position, event_fingerprint)$
-- Compare and set; answers with nothing where somebody else took it over.
update rebuild_parts set position = :to_position, event_fingerprint = :event_fingerprint
where part = :part and incarnation = :incarnation and position = :from_position
returning position;

-- name: raise_to_parts()!
-- Move the one checkpoint to the part that is furthest behind.
update projection_checkpoint
set position = least.position, event_fingerprint = least.event_fingerprint, moved_at = now()
from (select position, event_fingerprint from rebuild_parts order by position limit 1) as least
where projection_checkpoint.position < least.position;

-- name: join_parts(position)!
-- There is one checkpoint again, which no part is ahead of.
delete from rebuild_parts where position <= :position;

-- name: exists_as(schema_name, table_name)$
-- Whether a schema holds a table.
select to_regclass(format('%I.%I', :schema_name::text, :table_name::text)) is not null;

-- name: table_names(schema_name)
-- The tables of a schema.
select relname as name from pg_class
where relnamespace = to_regnamespace(quote_ident(:schema_name)) and relkind = 'r'
order by relname;

-- name: columns(schema_name)
-- The columns of a schema's tables, in an order that does not depend on how they were made.
select
    pg_class.relname as table_name,
    pg_attribute.attname as name,
    format_type(pg_attribute.atttypid, pg_attribute.atttypmod) as type,
    coalesce(pg_attribute.attnum = any(pg_index.indkey), false) as in_key
from pg_class
join pg_attribute on pg_attribute.attrelid = pg_class.oid
left join pg_index on pg_index.indrelid = pg_class.oid and pg_index.indisprimary
where pg_class.relnamespace = to_regnamespace(quote_ident(:schema_name))
    and pg_class.relkind = 'r' and pg_attribute.attnum > 0 and not pg_attribute.attisdropped
order by pg_class.relname, pg_attribute.attname;

-- name: create_replaced()#
-- Since when tables no longer serve, and until when they are kept to be switched back to.
create table replaced (
    singleton boolean not null default true,
    at timestamptz not null default now(),
    kept_until timestamptz not null,

    constraint one_replacement primary key (singleton),
    constraint replacement_is_singleton check (singleton)
);

-- name: note_replaced(kept_for)!
-- Begin the time for which they are kept.
insert into replaced (kept_until) values (now() + :kept_for::interval);

-- name: kept_until()$
-- Until when they are kept.
select kept_until from replaced;

-- name: is_over()$
-- Whether that time has passed.
select kept_until < now() from replaced;

-- name: is_abandoned(kept_for)$
-- Whether nobody has gone on with an unfinished rebuild for so long.
select moved_at + :kept_for::interval < now() from projection_checkpoint;

-- name: try_lock_rebuild(schema_name)$
-- Become the one that works on a schema beside the serving one, until the transaction ends.
select pg_try_advisory_xact_lock(
    hashtextextended('velro projector ' || :schema_name::text, 0)
);

-- name: unpark_generations(generation_ids)!
-- Nothing of these generations is put aside any more.
delete from parked_events where generation_id = any(:generation_ids::text[]);

-- name: table_sizes(schema_name)
-- What the tables of a schema take, with their indexes.
select relname as name, pg_total_relation_size(oid) as bytes
from pg_class
where relnamespace = to_regnamespace(quote_ident(:schema_name)) and relkind = 'r'
order by relname;
