-- Named values of sessions. Running this again changes nothing, and looks at nothing but the catalogue.
--
-- PostgresStore::migrate() runs it, with its own table name in place of mcp_sessions.

do $$
begin
  if not exists (
    select from pg_attribute where attrelid = to_regclass('"mcp_sessions"') and attname = 'named_values'
  ) then
    -- JSON, with the number of its format. Null: a session that never had any.
    alter table "mcp_sessions" add column named_values bytea;
  end if;
end
$$;
