-- What the attempts of a row died of, JSON.
alter table work add column history text;

alter table sessions add column dropped_at integer;
alter table sessions add column replays integer not null default 0;
alter table sessions add column replayed_at integer;

-- One guarded call a row, for failure rates. Uptime within a boot, because wall clocks jump.
create table calls (
  id integer primary key autoincrement,
  service text not null,
  outcome text not null,
  at integer not null,
  boot text not null,
  uptime_ms integer not null,
  took_ms integer not null
) strict;
create index calls_by_service on calls (service, id);

-- What could not be read, as it was found, before its row was made readable again.
create table quarantine (
  id integer primary key autoincrement,
  at integer not null,
  source text not null,
  key text not null,
  field text not null,
  why text not null,
  value blob
) strict;

-- What a person asks of a breaker that another process owns.
create table breaker_commands (
  id integer primary key autoincrement,
  service text not null,
  action text not null,
  at integer not null
) strict;

-- `sent` 2: to be sent, and of a kind that release 1 cannot read, which must not stumble over it.
create index events_to_send on events (id) where sent <> 1;
