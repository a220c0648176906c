-- name: generation_rows(ids)
-- Whole rows of the generation read model, to be compared; the hash tells that all were.
select *, hashtextextended(id, 0) as id_hash from generations where id = any(:ids::text[]);

-- name: storage_rows(ids)
-- Whole rows of the backlog, to be compared; outputs in order.
select *, hashtextextended(generation_id, 0) as id_hash
from backlog
where generation_id = any(:ids::text[])
order by generation_id, output_index;

-- name: generation_all()
-- How many rows there are, and what their ids' hashes add up to.
select count(*) as rows, coalesce(sum(hashtextextended(id, 0)::numeric), 0) as hashes
from generations;

-- name: storage_all()
-- The same of the backlog.
select count(*) as rows, coalesce(sum(hashtextextended(generation_id, 0)::numeric), 0) as hashes
from backlog;

-- name: generation_ids()
-- Every generation that has a row.
select id from generations;

-- name: storage_ids()
-- Every generation that has rows in the backlog, once for each row.
select generation_id as id from backlog;

-- name: parked()
-- From where on a generation's events are put aside, how many are, and why.
select
    generation_id,
    min(position) as position,
    count(*) as events,
    (array_agg(reason order by position))[1] as reason
from parked_events
group by generation_id;
