-- What other processes hear: ends, and changes of owners and values. Running this again changes nothing.
--
-- SqliteStore::migrate() runs it, with its own table name in place of mcp_sessions.

create table if not exists "mcp_sessions_ends" (
  number    integer not null primary key autoincrement,
  reference blob    not null,
  reason    text    not null -- or 'changed': it has not ended
) strict;

-- A session is ended by writing its end down: both or neither. The last 4096 are kept for whoever reads them late.
create trigger if not exists "mcp_sessions_ended" after insert on "mcp_sessions_ends"
begin
  delete from "mcp_sessions" where reference = new.reference and new.reason <> 'changed';
  delete from "mcp_sessions_ends" where number <= new.number - 4096;
end;

create trigger if not exists "mcp_sessions_claimed" after update of principal on "mcp_sessions"
when old.principal is not new.principal
begin
  insert into "mcp_sessions_ends" (reference, reason) values (new.reference, 'changed');
end;

create trigger if not exists "mcp_sessions_values_changed" after update on "mcp_sessions_values"
begin
  insert into "mcp_sessions_ends" (reference, reason) values (new.reference, 'changed');
end;

-- The values that a session is created with are written before it, and are no change.
create trigger if not exists "mcp_sessions_values_new" after insert on "mcp_sessions_values"
when exists (select 1 from "mcp_sessions" where reference = new.reference)
begin
  insert into "mcp_sessions_ends" (reference, reason) values (new.reference, 'changed');
end;
