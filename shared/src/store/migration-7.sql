alter table sessions add column audio_expired_at integer;
alter table sessions add column expired_at integer;

create table erasures (
  session text primary key,
  why text not null,
  begun_at integer not null,
  erased_at integer,
  cleaned_at integer,
  clinic text not null default 'none',
  word text
) strict;
create index erasures_under_way on erasures (session) where erased_at is null or cleaned_at is null;
create index erasures_owed on erasures (begun_at) where clinic = 'owed';
