create table leases (
  name text primary key,
  holder text not null,
  beat integer not null
) strict, without rowid;
