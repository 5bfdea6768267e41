-- Sessions, for PostgreSQL 11 or later. Running this again changes nothing.
--
-- PostgresStore::migrate() runs it, with its own table name in place of mcp_sessions. Objects that exist are not
-- even looked at with "if not exists", which would lock them against the sessions in use.

do $$
begin
  if to_regclass('"mcp_sessions"') is null then
    create table "mcp_sessions" (
      -- SHA-256 of the session id: a stolen table opens no session.
      reference         bytea       not null primary key,
      -- Names are UTF-8 in bytea, because text cannot hold a NUL: convert_from(scope, 'UTF8') shows them.
      scope             bytea       not null,
      principal         bytea,                -- null: anonymous
      by_layer          boolean     not null, -- whether the layer made the id
      client_name       bytea,
      client_version    bytea,
      protocol_version  bytea,
      initialize_params bytea,
      created           timestamptz not null,
      -- No touch was later. Until then touches need not write, so it is up to a sixteenth of the idle time after the
      -- last one that did.
      latest_touch      timestamptz not null,
      used              boolean     not null, -- whether it was touched since it was created
      expires           timestamptz not null,
      life_ends         timestamptz           -- null: no absolute life
    )
    -- A touch changes latest_touch and expires. So neither is indexed, and each page keeps some room: PostgreSQL then
    -- does it within the page and leaves the indexes alone (HOT). Initialize parameters over 2 kB it keeps beside the
    -- row (TOAST), where a change of the row does not copy them.
    with (fillfactor = 70);
  end if;

  if to_regclass('"mcp_sessions_owner"') is null then
    create index "mcp_sessions_owner" on "mcp_sessions" (scope, principal);
  end if;

  -- Whose sessions were all ended, for an hour: creations that began before are refused.
  if to_regclass('"mcp_sessions_revoked"') is null then
    create table "mcp_sessions_revoked" (
      scope     bytea       not null,
      everyone  boolean     not null, -- the whole scope, not one principal
      principal bytea,
      at        timestamptz not null
    );
  end if;

  if to_regclass('"mcp_sessions_revoked_at"') is null then
    create index "mcp_sessions_revoked_at" on "mcp_sessions_revoked" (scope, at);
  end if;
end
$$;
