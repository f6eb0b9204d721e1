-- Of a code only the SHA-256 of its secret, and of the key that it was used for, in hexadecimal.
create table invitations (
  code_hash text primary key,
  box text not null,
  expires_at text not null,
  used_key text,
  used_at text
) strict, without rowid;
-- What was asked of boxes, and how they answered.
create table commands (
  id text primary key,
  box text not null,
  name text not null,
  subject text,
  asked_by text not null,
  issued_at text not null,
  expires_at text not null,
  order_json text not null,
  published_at text,
  outcome text,
  message text,
  answered_at text
) strict, without rowid;
create index commands_open on commands (issued_at) where outcome is null;
-- Boxes of which a broker may keep a message to Home Assistant.
create table discovered (
  box text primary key
) strict, without rowid;
