create table withdrawals (
  session_id text primary key,
  box text not null,
  withdrawn_at text not null,
  cleaned integer not null default 0
) strict, without rowid;
create index withdrawals_unclean on withdrawals (session_id) where cleaned = 0;
