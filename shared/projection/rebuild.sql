-- name: create_rebuild()#
-- What a rebuild keeps beside the tables it fills, until they take the old ones' place.
create table rebuild_origin (
    singleton boolean not null default true,
    -- Of the code that folded what is there: another one begins anew rather than mixing two folds.
    program_fingerprint text not null,

    constraint one_rebuild primary key (singleton),
    constraint rebuild_is_singleton check (singleton)
);

-- name: begin_rebuild(program_fingerprint)!
-- Note by which code the tables are filled.
insert into rebuild_origin (program_fingerprint) values (:program_fingerprint);

-- name: origin()^
-- What an earlier rebuild left, if it can be recognised.
select rebuild_origin.program_fingerprint, projection_checkpoint.schema_fingerprint
from rebuild_origin, projection_checkpoint;

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
