-- Orders of the clinic: each is carried out once, and its answer can be said again.
create table commands (
  id text primary key,
  name text not null,
  taken_at integer not null,
  answer text
) strict, without rowid;
-- Messages of the link that were not believed, counted.
create table disbelieved (
  what text primary key,
  count integer not null
) strict, without rowid;
