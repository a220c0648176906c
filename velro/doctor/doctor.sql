-- name: settings()^
-- What decides whether a commit survives, and how many may connect.
select
    current_setting('server_version') as version,
    current_setting('fsync')::boolean as fsync,
    current_setting('full_page_writes')::boolean as full_page_writes,
    current_setting('synchronous_commit') as synchronous_commit,
    current_setting('max_connections')::integer as max_connections,
    current_setting('superuser_reserved_connections')::integer
    + coalesce(current_setting('reserved_connections', true), '0')::integer as reserved;

-- name: connections()^
-- Who is connected now; of others only the fact is visible.
select
    count(*) filter (where backend_type = 'client backend' or backend_type is null) as used,
    count(*) filter (where application_name like 'velro %') as ours
from pg_stat_activity;

-- name: clock()$
-- The server's clock.
select clock_timestamp();

-- name: projector_active(schema_name)$
-- Whether a process holds the lock of a schema's projector.
select exists (
    select from pg_locks
    where locktype = 'advisory' and granted and objsubid = 1
    and database = (select oid from pg_database where datname = current_database())
    and ((classid::bigint << 32) | objid::bigint)
    = hashtextextended('velro projector ' || :schema_name::text, 0)
);

-- name: checkpoint_age()^
-- How far the tables are, and since when they stand there.
select
    position, schema_fingerprint,
    extract(epoch from clock_timestamp() - moved_at)::double precision as stands_s
from projection_checkpoint;
