create table accounts (
  name text primary key,
  role text not null,
  password text not null,
  created_at text not null,
  changed_at text not null
) strict, without rowid;
create table logins (
  token_hash blob primary key,
  account text not null,
  form_token text not null,
  began_at integer not null,
  seen_at integer not null
) strict, without rowid;
create index logins_by_account on logins (account);
create table api_tokens (
  name text primary key,
  role text not null,
  token_hash blob not null unique,
  created_at text not null
) strict, without rowid;
create table access_log (
  id integer primary key,
  at text not null,
  who text not null,
  what text not null,
  session_id text,
  address text
) strict;
create index access_log_by_what on access_log (what, id);
