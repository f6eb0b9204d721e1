-- Whether the session has had a key for its content: what has none any more was destroyed, or is lost.
alter table sessions add column content text not null default 'plain';

-- While a row is here, what was stored plain may still lie in pages that are free: the file is to be written anew.
create table plain (one integer primary key check (one = 1)) strict;
insert into plain select 1 where exists (select 1 from sessions);
