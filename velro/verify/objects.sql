-- name: make_kept()#
-- What the log says is in the bucket, as it is found, in no order. On disk: this may be millions.
create table kept (
    bucket text not null,
    key text not null,
    generation_id text not null,
    output_index integer not null,
    size_bytes integer not null,
    sha256 text not null,
    media_type text not null,
    -- Of the generation's last event that changed it, in seconds since 1970.
    said_at real not null
);

-- name: keep(bucket, key, generation_id, output_index, size_bytes, sha256, media_type, said_at)*!
insert into kept values (
    :bucket, :key, :generation_id, :output_index, :size_bytes, :sha256, :media_type, :said_at
);

-- name: make_listed()#
-- What is in the buckets, as they list it, and what the log says, by key: each in its own table,
-- because services list in orders of their own.
create table listed (
    bucket text not null,
    key text not null,
    size_bytes integer not null,
    modified_at real not null,
    primary key (bucket, key)
) without rowid;

create table expected (
    bucket text not null,
    key text not null,
    generation_id text not null,
    output_index integer not null,
    size_bytes integer not null,
    sha256 text not null,
    media_type text not null,
    said_at real not null,
    primary key (bucket, key)
) without rowid;

-- name: list(bucket, key, size_bytes, modified_at)*!
insert or replace into listed values (:bucket, :key, :size_bytes, :modified_at);

-- name: take_over()!
-- What one part of the log said; sorted first, which makes writing the tree cheap.
insert or replace into expected select * from part.kept order by bucket, key;

-- name: buckets()
-- Every bucket that the log names, and how much it should hold.
select bucket, count(*) as outputs from expected group by bucket;

-- name: missing(readable)
-- Said by the log to be in a bucket that could be listed, and not listed there.
select expected.* from expected
left join listed using (bucket, key)
where listed.key is null and expected.bucket in (select value from json_each(:readable));

-- name: different()
-- Listed with another size than the log says.
select expected.* from expected join listed using (bucket, key)
where listed.size_bytes <> expected.size_bytes;

-- name: rewritten(slack_s)
-- Listed with the right size, and written after the log's last word on the generation.
select expected.* from expected join listed using (bucket, key)
where listed.size_bytes = expected.size_bytes and listed.modified_at > expected.said_at + :slack_s;

-- name: present()
-- Listed with the right size.
select expected.* from expected join listed using (bucket, key)
where listed.size_bytes = expected.size_bytes;

-- name: unclaimed()
-- Listed, and not said by the log.
select listed.* from listed left join expected using (bucket, key) where expected.key is null;
