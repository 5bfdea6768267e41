-- Sessions, for SQLite 3.42 or later. Running this again changes nothing.
--
-- SqliteStore::migrate() runs it, with its own table name in place of mcp_sessions.

create table if not exists "mcp_sessions" (
  -- SHA-256 of the session id: a stolen file opens no session.
  reference        blob    not null primary key,
  -- Names are UTF-8 in blobs, because text with a NUL confuses SQLite: cast(scope as text) shows them.
  scope            blob    not null,
  principal        blob,             -- null: anonymous
  by_layer         integer not null, -- whether the layer made the id
  client_name      blob,
  client_version   blob,
  protocol_version blob,
  -- Times are milliseconds since 1970.
  created          integer not null,
  -- No touch was later. Until then touches need not write, so it is up to a sixteenth of the idle time after the last
  -- one that did.
  latest_touch     integer not null,
  used             integer not null, -- whether it was touched since it was created
  expires          integer not null,
  life_ends        integer           -- null: no absolute life
) strict, without rowid;

create index if not exists "mcp_sessions_owner" on "mcp_sessions" (scope, principal);
-- For counting and for sweeping, which would else hold up all writers for as long as it takes to read the table.
create index if not exists "mcp_sessions_expires" on "mcp_sessions" (expires, scope);

-- SQLite writes whole rows, and every request changes one: what is long is kept apart.
create table if not exists "mcp_sessions_params" (
  reference         blob not null primary key,
  initialize_params blob not null
) strict;

create trigger if not exists "mcp_sessions_gone" after delete on "mcp_sessions"
begin
  delete from "mcp_sessions_params" where reference = old.reference;
end;

-- Whose sessions were all ended, for an hour: creations that began before are refused.
create table if not exists "mcp_sessions_revoked" (
  scope     blob    not null,
  everyone  integer not null, -- the whole scope, not one principal
  principal blob,
  at        integer not null
) strict;

create index if not exists "mcp_sessions_revoked_at" on "mcp_sessions_revoked" (scope, at);
