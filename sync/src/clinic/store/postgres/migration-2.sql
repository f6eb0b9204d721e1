-- Of a code only the SHA-256 of its secret, and of the key that it was used for, in hexadecimal.
create table invitations (
  code_hash text collate "C" primary key,
  box text collate "C" not null,
  expires_at text collate "C" not null,
  used_key text collate "C",
  used_at text collate "C"
);
-- What was asked of boxes, and how they answered.
create table commands (
  id text collate "C" primary key,
  box text collate "C" not null,
  name text collate "C" not null,
  subject text collate "C",
  asked_by text collate "C" not null,
  issued_at text collate "C" not null,
  expires_at text collate "C" not null,
  order_json text collate "C" not null,
  published_at text collate "C",
  outcome text collate "C",
  message text collate "C",
  answered_at text collate "C"
);
create index commands_open on commands (issued_at) where outcome is null;
-- Boxes of which a broker may keep a message to Home Assistant.
create table discovered (
  box text collate "C" primary key
);
