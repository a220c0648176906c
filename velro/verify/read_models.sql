-- name: generation_rows(ids)
-- Whole rows of the generation read model, to be compared.
select * from generations where id = any(:ids::text[]);

-- name: storage_rows(ids)
-- Whole rows of the backlog, to be compared; outputs in order.
select * from backlog where generation_id = any(:ids::text[]) order by generation_id, output_index;

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
