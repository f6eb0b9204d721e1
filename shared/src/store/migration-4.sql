-- The prints of enrolled voices, each sealed with a key of its own.
create table voices (
  id text primary key,
  made_at integer not null,
  print blob not null
) strict, without rowid;
