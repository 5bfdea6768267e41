-- Named values of sessions, kept apart as initialize parameters are. Running this again changes nothing.
--
-- SqliteStore::migrate() runs it, with its own table name in place of mcp_sessions.

create table if not exists "mcp_sessions_values" (
  reference    blob not null primary key,
  named_values blob not null -- JSON, with the number of its format
) strict, without rowid;

create trigger if not exists "mcp_sessions_values_gone" after delete on "mcp_sessions"
begin
  delete from "mcp_sessions_values" where reference = old.reference;
end;
