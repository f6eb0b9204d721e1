create table alerts (
  alert text not null,
  box text not null,
  since text not null,
  primary key (alert, box)
) strict, without rowid;
