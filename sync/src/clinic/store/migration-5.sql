create table commands (
  id text primary key,
  box text not null,
  name text not null,
  subject text,
  by text not null,
  issued_at text not null,
  expires_at text not null,
  order_json text not null,
  published_at text,
  outcome text,
  message text,
  answered_at text
) strict, without rowid;
create index commands_open on commands (issued_at) where outcome is null;
