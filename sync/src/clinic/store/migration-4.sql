create table invitations (
  code_hash blob primary key,
  box text not null,
  expires_at text not null,
  used_key blob,
  used_at text
) strict, without rowid;
