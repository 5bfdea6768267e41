-- A creation. One row answers what became of it.
with
-- Touches no row. What counts is that this statement takes the table's lock before it looks at anything: a revocation
-- holds that lock alone until it has left its mark, so a creation is either recorded before it and ended by it, or sees
-- the mark.
gate as (
  delete from "mcp_sessions_revoked" where false
),
clock as materialized (
  select clock_timestamp() as now
),
counts as materialized (
  select
    exists (
      select from "mcp_sessions_revoked"
      -- now() is when this statement arrived, before it waited for any lock.
      where scope = $2 and at >= now() - $14::bigint * interval '1 microsecond'
        and (everyone or principal is not distinct from $3)
    ) as revoked,
    exists (
      select from "mcp_sessions" where reference = $1 and expires > clock.now
    ) as taken,
    $12::bigint is not null and $3 is not null and $12 <= (
      select count(*) from (
        select from "mcp_sessions"
        where scope = $2 and principal = $3 and expires > clock.now limit $12
      ) own
    ) as principal_full,
    case when $11::bigint is not null then (
      select count(*) from (
        select from "mcp_sessions" where scope = $2 and expires > clock.now limit $11
      ) sessions
    ) end as total
  from clock
),
verdict as materialized (
  select *, coalesce(total >= $11, false) as total_full, not revoked and not taken as is_welcome from counts
),
-- References are evenly spread, so those that follow a new one are a fair sample.
sample as materialized (
  (select reference from "mcp_sessions"
    where (select is_welcome and principal_full and $13::bigint is not null from verdict)
      and scope = $2 and principal = $3 and expires > (select now from clock)
    limit 64)
  -- For somebody else's no principal's session is ended.
  union all
  (select reference from "mcp_sessions"
    where (select is_welcome and total_full and not principal_full and $13 is not null from verdict)
      and scope = $2 and principal is null and expires > (select now from clock) and reference > $1
    order by reference limit 64)
  union all
  (select reference from "mcp_sessions"
    where (select is_welcome and total_full and not principal_full and $13 is not null from verdict)
      and scope = $2 and principal is null and expires > (select now from clock) and reference < $1
    order by reference limit 64)
),
victim as materialized (
  select reference from "mcp_sessions"
  where reference in (select reference from sample)
    and latest_touch <= clock_timestamp() - case when used then $13 else $15::bigint end * interval '1 microsecond'
  order by used, latest_touch limit 1
  -- One that is being touched right now is in use.
  for update skip locked
),
evicted as (
  delete from "mcp_sessions" where reference in (select reference from victim)
  returning reference
),
room as materialized (
  select is_welcome and (not principal_full and not total_full or exists (select from evicted)) as has_room
  from verdict
),
inserted as (
  insert into "mcp_sessions" as old (
    reference, scope, principal, by_layer, client_name, client_version, protocol_version, initialize_params,
    created, latest_touch, used, expires, life_ends, named_values
  )
  select
    $1, $2, $3, $4, $5, $6, $7, $8,
    clock.now, clock.now, false,
    clock.now + $9::bigint * interval '1 microsecond', clock.now + $10::bigint * interval '1 microsecond', $17
  from clock, room
  where has_room and $16::boolean
  on conflict (reference) do update set
    scope = excluded.scope, principal = excluded.principal, by_layer = excluded.by_layer,
    client_name = excluded.client_name, client_version = excluded.client_version,
    protocol_version = excluded.protocol_version, initialize_params = excluded.initialize_params,
    created = excluded.created, latest_touch = excluded.latest_touch, used = excluded.used,
    expires = excluded.expires, life_ends = excluded.life_ends, named_values = excluded.named_values
  -- An expired session that nobody has swept away yet is no session.
  where old.expires <= clock_timestamp()
  returning reference
)
select
  revoked, taken, principal_full, total_full, total,
  exists (select from inserted) as is_new, has_room,
  (select reference from evicted) as evicted,
  (select count(pg_notify('mcp_sessions', {name} || ' evicted')) from evicted) as told
from verdict, room
