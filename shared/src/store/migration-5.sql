-- Who did what, when, to which session; never what was said. Each row's hash is over the one before and its own fields.
create table audit (
  number integer primary key,
  at integer not null,
  actor text not null,
  action text not null,
  subject text,
  hash blob not null
) strict;

-- The last row that was written, so that one cut off is missed.
create table audit_head (
  one integer primary key check (one = 1),
  number integer not null,
  hash blob not null
) strict;
insert into audit_head (one, number, hash) values (1, 0, zeroblob(32));
