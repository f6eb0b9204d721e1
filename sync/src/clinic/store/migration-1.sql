create table therapy_sessions (
  id text primary key,
  box text not null,
  revision integer not null,
  created_at text not null,
  updated_at text not null,
  status text not null,
  error_message text,
  error_type text,
  diarization_status text not null,
  started_at text not null,
  ended_at text not null,
  duration_s real not null,
  speaker_count integer not null,
  segment_count integer not null,
  gap_count integer not null,
  time_quality text not null
) strict;
create index therapy_sessions_by_status on therapy_sessions (status, updated_at);
create index therapy_sessions_by_start on therapy_sessions (started_at);

create table parcels (
  session_id text not null,
  revision integer not null,
  box text not null,
  sha256 text not null,
  received_at text not null,
  parcel blob not null,
  primary key (session_id, revision)
) strict;

create table boxes (
  box text primary key,
  status text not null default 'offline',
  health text,
  seen_at integer
) strict;

create table events (
  box text not null,
  id integer not null,
  at text not null,
  event text not null,
  primary key (box, id, at)
) strict, without rowid;
