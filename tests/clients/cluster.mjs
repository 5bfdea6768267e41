// Two nodes on one store, whose clocks differ by ten minutes, behind a round-robin proxy, and a real client that makes a
// thousand calls while nodes and the store are killed: `node cluster.mjs STORE...`, where a store is postgres://.., or redis for one
// of its own, and may be followed by flags of the server, as in 'redis --cached=5'.

import { createHash } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Nodes, Proxy } from "./proxy.mjs";
import { Checks, Puppet, until } from "./puppets.mjs";
import { Redis } from "./redis.mjs";

const CALLS = 1000;
/// How long a request waits for the store.
const PATIENCE = 3000;

// The clock on the wall, not the one that measures how long something takes.
const AHEAD = { LD_PRELOAD: process.env.FAKETIME_LIBRARY, FAKETIME: "+10m", DONT_FAKE_MONOTONIC: "1" };

/// A thousand calls, one after the other, and what came of them. `events` begin before the calls of their numbers, and go on
/// beside them. What broke, and what was answered 503, is called again.
async function thousand(client, proxy, events) {
  const result = { right: 0, wrong: [], broken: 0, unavailable: 0, longest: 0 };
  let event;
  for (let i = 0; i < CALLS; ) {
    const happens = events[i];
    if (happens) {
      await event;
      event = happens();
      delete events[i];
    }
    const before = { broken: proxy.broken.length, unavailable: proxy.unavailable.length };
    const began = Date.now();
    // A client may wait for the rest of an answer that was cut off.
    const cut = new Promise((resolve) => (proxy.onBreak = () => setTimeout(resolve, 500, "cut off")));
    const [tool, args, answer] = happens ? ["sleep", { seconds: 1 }, "slept 1 s"] : ["echo", { message: `call ${i}` }, `call ${i}`];
    const got = await Promise.race([client.call(tool, args).catch(String), cut]);
    result.longest = Math.max(result.longest, Date.now() - began);
    if (got === answer) result.right++;
    else if (proxy.broken.length > before.broken) result.broken++;
    else if (proxy.unavailable.length > before.unavailable) result.unavailable++;
    else result.wrong.push(`call ${i}: ${got}`);
    if (result.right + result.wrong.length > i) i++;
  }
  await event;
  return result;
}

async function play(kind, name, flags, redis) {
  const check = checks.named(name);
  const nodes = new Nodes(flags, (at) => ({ RUST_LOG: "info", ...(at === 1 ? AHEAD : {}) }));
  await Promise.all([nodes.start(0), nodes.start(1)]);
  const proxy = new Proxy(nodes);
  const client = await new Puppet(kind).connect(await proxy.start());
  check("its client has a stream", (await until(() => client.stream())) < 10_000, true);

  // The node that has the call goes away with it, and comes back.
  const back = async () => {
    await sleep(150);
    const at = proxy.last;
    await nodes.kill(at);
    await sleep(1500);
    await nodes.start(at);
  };
  const outages = [];
  const outage = (length) => async () => {
    const down = Date.now();
    await redis.kill();
    await sleep(length);
    await redis.up();
    outages.push({ down, up: Date.now() });
  };
  const events = { 150: back, 351: back, ...(redis && { 550: outage(1000), 750: outage(2 * PATIENCE) }) };
  const result = await thousand(client, proxy, events);
  console.log(`     ${name}: ${JSON.stringify({ ...result, refused: proxy.refused, statuses: proxy.statuses })}`);

  check("answers a thousand calls", result.right, CALLS);
  check("loses none", result.wrong, []);
  // A client whose call broke off with its node asks the other one for the rest, which is nowhere: without an event store
  // that is the service's 400, and no session is gone.
  const lost = Object.keys(proxy.statuses)
    .filter((status) => /4[0-9][0-9]$|50[0124]$/.test(status) && status !== "GET 400");
  check("finds no session gone, and no node at fault", lost, []);
  // Nothing that the store would have answered in time is refused.
  const early = proxy.unavailable.filter(({ answered }) => {
    return !outages.some(({ down, up }) => answered - down > PATIENCE - 200 && answered < up + 1000);
  });
  check("is away only while the store was away for too long", early, []);
  if (flags.some((flag) => flag.startsWith("--cached"))) check("or not at all", proxy.unavailable, []);
  check("was refused by a killed node now and then", proxy.refused > 0, true);
  check("lived through each outage", outages.length, redis ? 2 : 0);
  check("spreads over both nodes", proxy.served.every((count) => count > CALLS / 4), true);
  const apart = Math.abs(proxy.clocks[1] - proxy.clocks[0]) / 60_000;
  check("has clocks ten minutes apart", apart > 9 && apart < 11, true);
  check("kept one session all the time", new Set((await client.wire()).map((exchange) => exchange.id)).size, 1);
  const reference = createHash("sha256").update(client.id).digest("base64url");
  check("is ended through one node", (await nodes.all[0].end(`sessions/${reference}`)).status, 204);
  for (const _ of nodes.all) check("and dead on both", await client.call("counter").catch(() => "failed"), "failed");
  check("by a 404", proxy.statuses["POST 404"], 2);
  check("writes no id into a log", nodes.logs().some((log) => log.includes(client.id)), false);
  await Promise.all([nodes.kill(0), nodes.kill(1)]);
}

const checks = new Checks();
await Promise.all(
  process.argv.slice(2).map(async (given) => {
    const [store, ...more] = given.split(" ");
    const redis = store === "redis" && (await Redis.start());
    // A language each.
    const kind = redis ? "ts2" : "mcp2";
    const name = [kind, store.split(":")[0], ...more].join(" ");
    const flags = [`--store=${redis ? `redis://127.0.0.1:${redis.port}` : store}`, ...more];
    await play(kind, name, flags, redis).catch((error) => {
      checks.named(name)(`goes through: ${error.stack}`, false, true);
    });
    if (redis) await redis.remove();
  }),
);
checks.finish("cluster");
