-- name: make()#
-- Generations that could not be settled by one stretch of the log alone: those that began in it, as
-- far as they came, and events of those that began before it.
create table begun (id text primary key, state blob not null) without rowid;

create table tails (
    id text not null,
    position integer not null,
    subject text not null,
    data blob not null,
    primary key (id, position)
) without rowid;

-- name: add_begun(id, state)*!
insert or replace into begun values (:id, :state);

-- name: add_tail(id, position, subject, data)*!
insert or replace into tails values (:id, :position, :subject, :data);

-- name: all_begun()
select id, state from begun;

-- name: which_begun(ids)
select id from begun where id in (select value from json_each(:ids));

-- name: tails_of(ids)
select position, subject, data from tails
where id in (select value from json_each(:ids)) order by position;

-- name: all_tails()
select distinct id from tails;
