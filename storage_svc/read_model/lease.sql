-- name: promote(now, max_rows)!
-- Make ready what has waited long enough: for its next attempt, or for a new link.
update backlog set ready = true
from (
    select generation_id, output_index
    from backlog
    where not ready and next_attempt_at <= :now
    order by next_attempt_at
    limit :max_rows
    for update skip locked
) as due
where backlog.generation_id = due.generation_id and backlog.output_index = due.output_index;

-- name: lease_living(now, until, owner, closed_hosts, max_rows)
-- Take what dies soonest and still lives (a deadline is the second in which a link dies). A lease
-- that ran out is taken over.
with due as (
    select generation_id, output_index
    from backlog
    where ready and deadline > :now::timestamptz - interval '1 second'
        and (lease_until is null or lease_until <= :now)
        and source_host <> all(:closed_hosts::text[])
    order by deadline, turn
    limit :max_rows
    for update skip locked
)
update backlog set lease_owner = :owner, lease_until = :until
from due
where backlog.generation_id = due.generation_id and backlog.output_index = due.output_index
returning
    backlog.generation_id, backlog.output_index, backlog.user_id, backlog.provider,
    backlog.source_url, backlog.source_host, backlog.dies_at, backlog.deadline, backlog.turn,
    backlog.attempts;

-- name: lease_dead(now, until, owner, closed_hosts, max_rows)
-- Take what should be dead by now, the youngest death first: some links outlive their promise.
with due as (
    select generation_id, output_index
    from backlog
    where ready and deadline <= :now::timestamptz - interval '1 second'
        and (lease_until is null or lease_until <= :now)
        and source_host <> all(:closed_hosts::text[])
    order by deadline desc, turn desc
    limit :max_rows
    for update skip locked
)
update backlog set lease_owner = :owner, lease_until = :until
from due
where backlog.generation_id = due.generation_id and backlog.output_index = due.output_index
returning
    backlog.generation_id, backlog.output_index, backlog.user_id, backlog.provider,
    backlog.source_url, backlog.source_host, backlog.dies_at, backlog.deadline, backlog.turn,
    backlog.attempts;

-- name: lease_probes(now, until, owner, hosts, max_rows)
-- Take one output of each of these hosts: of those that live the least tried. By death alone it
-- would be one of those that fail by themselves, again and again, while all others wait.
with due as (
    select least_tried.generation_id, least_tried.output_index
    from unnest(:hosts::text[]) as probed (host)
    cross join lateral (
        select generation_id, output_index, deadline
        from backlog
        where ready and source_host = probed.host
            and (lease_until is null or lease_until <= :now)
        order by deadline <= :now::timestamptz - interval '1 second', attempts, deadline, turn
        limit 1
        for update skip locked
    ) as least_tried
    order by least_tried.deadline
    limit :max_rows
)
update backlog set lease_owner = :owner, lease_until = :until
from due
where backlog.generation_id = due.generation_id and backlog.output_index = due.output_index
returning
    backlog.generation_id, backlog.output_index, backlog.user_id, backlog.provider,
    backlog.source_url, backlog.source_host, backlog.dies_at, backlog.deadline, backlog.turn,
    backlog.attempts;

-- name: lease_one(now, until, owner, generation_id)
-- Take the outputs of one generation that are not stored, whatever they wait for: a person asks.
with wanted as (
    select generation_id, output_index
    from backlog
    where generation_id = :generation_id and state = 'pending'
        and (lease_until is null or lease_until <= :now)
    order by output_index
    for update skip locked
)
update backlog set lease_owner = :owner, lease_until = :until
from wanted
where backlog.generation_id = wanted.generation_id
    and backlog.output_index = wanted.output_index
returning
    backlog.generation_id, backlog.output_index, backlog.user_id, backlog.provider,
    backlog.source_url, backlog.source_host, backlog.dies_at, backlog.deadline, backlog.turn,
    backlog.attempts;

-- name: renew(owner, until, generation_ids, output_indexes)
-- Hold these leases longer; answers with those that are still ours.
update backlog set lease_until = :until
from unnest(:generation_ids::text[], :output_indexes::integer[]) as held (generation_id, output_index)
where backlog.generation_id = held.generation_id and backlog.output_index = held.output_index
    and backlog.lease_owner = :owner
returning backlog.generation_id, backlog.output_index;

-- name: give_back(owner, generation_ids, output_indexes)!
-- Let somebody else take these at once.
update backlog set lease_owner = null, lease_until = null
from unnest(:generation_ids::text[], :output_indexes::integer[]) as held (generation_id, output_index)
where backlog.generation_id = held.generation_id and backlog.output_index = held.output_index
    and backlog.lease_owner = :owner;

-- name: release(reason, failed_before, max_rows)!
-- Make ready, before its time, what failed for one reason that is no reason any more.
update backlog set ready = true
from (
    select generation_id, output_index
    from backlog
    where state = 'pending' and not ready and reason = :reason and failed_at < :failed_before
    order by deadline
    limit :max_rows
    for update skip locked
) as back
where backlog.generation_id = back.generation_id and backlog.output_index = back.output_index;

-- name: next_due()$
-- When something can be taken next without any news: an attempt becomes due, or a lease runs out.
select least(
    (select min(next_attempt_at) from backlog where next_attempt_at is not null and not ready),
    (select min(lease_until) from backlog where lease_until is not null)
);
