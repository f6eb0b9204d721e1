create table sessions (
  id text primary key,
  revision integer not null default 1,
  status text not null,
  diarization_status text,
  error_message text,
  error_type text,
  error text,
  consent text not null,
  time_quality text not null,
  started_at integer not null,
  ended_at integer,
  created_at integer not null,
  updated_at integer not null,
  samples integer not null default 0,
  engine_seconds real not null default 0,
  audio text not null default 'kept'
) strict;
create index sessions_by_status on sessions (status);

create table windows (
  session text not null references sessions (id),
  number integer not null,
  start_sample integer not null,
  end_sample integer not null,
  blind_cut integer not null,
  primary key (session, number)
) strict, without rowid;

create table work (
  id integer primary key,
  session text not null references sessions (id),
  number integer not null,
  task text not null,
  state text not null default 'pending',
  attempts integer not null default 0,
  claims integer not null default 0,
  cause text,
  result blob,
  unique (session, number, task)
) strict;
create index work_by_state on work (task, state);

create table breakers (
  service text primary key,
  stored text not null,
  updated_at integer not null
) strict;

create table records (
  session text not null references sessions (id),
  revision integer not null,
  record blob not null,
  created_at integer not null,
  primary key (session, revision)
) strict;

create table outbox (
  session text not null references sessions (id),
  revision integer not null,
  sha256 text not null,
  parcel blob not null,
  state text not null default 'pending',
  reason text,
  created_at integer not null,
  primary key (session, revision)
) strict;
create index outbox_by_state on outbox (state, created_at);

create table acks (
  session text not null,
  revision integer not null,
  ack text not null,
  received_at integer not null,
  primary key (session, revision)
) strict;

create table events (
  id integer primary key autoincrement,
  at integer not null,
  event text not null,
  sent integer not null default 0
) strict;
create index events_unsent on events (id) where sent = 0;

create table health (
  one integer primary key check (one = 1),
  health text not null
) strict;
