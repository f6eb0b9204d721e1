-- Names and dates as text sort by their bytes, as in SQLite, whatever the database's language.
create table therapy_sessions (
  id text collate "C" primary key,
  box text collate "C" not null,
  revision bigint not null,
  created_at timestamptz not null,
  updated_at timestamptz not null,
  status text not null,
  error_message text,
  error_type text,
  diarization_status text not null,
  started_at timestamptz not null,
  ended_at timestamptz not null,
  duration_s double precision not null,
  speaker_count bigint not null,
  segment_count bigint not null,
  gap_count bigint not null,
  time_quality text not null
);
create index therapy_sessions_by_status on therapy_sessions (status, updated_at);
create index therapy_sessions_by_start on therapy_sessions (started_at);

create table parcels (
  session_id text collate "C" not null,
  revision bigint not null,
  box text collate "C" not null,
  sha256 text not null,
  received_at timestamptz not null,
  parcel bytea not null,
  primary key (session_id, revision)
);
-- A sealed parcel does not become smaller.
alter table parcels alter column parcel set storage external;
-- Only a withdrawal deletes from here: what it deleted is vacuumed the next time the server looks, however little it is.
alter table parcels set (
  autovacuum_enabled = true,
  autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_enabled = true,
  toast.autovacuum_vacuum_threshold = 0, toast.autovacuum_vacuum_scale_factor = 0
);

create table boxes (
  box text collate "C" primary key,
  status text not null default 'offline',
  health text,
  seen_at bigint
);

create table events (
  box text collate "C" not null,
  id bigint not null,
  at text collate "C" not null,
  event text not null,
  primary key (box, id, at)
);

create table alerts (
  alert text collate "C" not null,
  box text collate "C" not null,
  since text collate "C" not null,
  primary key (alert, box)
);

create table withdrawals (
  session_id text collate "C" primary key,
  box text collate "C" not null,
  withdrawn_at timestamptz not null
);

create table leases (
  name text collate "C" primary key,
  holder text not null,
  beat bigint not null
);
