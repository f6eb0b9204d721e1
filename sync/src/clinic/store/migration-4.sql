create table discovered (
  box text primary key
) strict, without rowid;
