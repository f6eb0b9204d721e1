-- When the first record of a session was stored: looked at every second, and in `records` it lies behind the content.
alter table sessions add column concluded_at integer;
update sessions set concluded_at = (
  select created_at from records r where r.session = sessions.id and r.revision = 1);
-- How many speakers there are, as far as somebody said.
alter table sessions add column speakers_at_least integer;
alter table sessions add column speakers_at_most integer;
create index sessions_by_conclusion on sessions (concluded_at);
create index sessions_by_update on sessions (updated_at);
