create table keys (
    owner text not null,
    purpose text not null,
    wrapped blob not null,
    made_at integer not null,
    primary key (owner, purpose)
) strict, without rowid;

-- One row for each destruction after which the file has still to be rewritten. Ids are never used again, so that who
-- rewrites it strikes off only what was destroyed before.
create table owed (id integer primary key autoincrement) strict;
