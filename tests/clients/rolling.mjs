// Two nodes on one store that are restarted in turn, and then killed, under real clients of all kinds:
// `node rolling.mjs STORE`, where a store is postgres://.., or redis for one of its own.
//
// A restart is what an orchestrator does: SIGTERM, upon which the node says at /ready that it is about to leave, goes on for a
// second, and is gone when its answers are. No client may notice.

import { setTimeout as sleep } from "node:timers/promises";
import { Nodes, Proxy } from "./proxy.mjs";
import { Checks, Puppet, ping, until } from "./puppets.mjs";
import { Redis } from "./redis.mjs";

const KINDS = ["ts1", "ts2", "mcp1", "mcp2", "rmcp"];
const CLIENTS_EACH = 5;
const RESTARTS_EACH = 5;
const KILLS = 3;

/// All in milliseconds. How long a client waits for the answer to a call.
const LIMIT = 5000;
/// How long a node goes on after it was asked to stop, and how often the proxy asks whether it will.
const LINGER = 1000;
const ASKED_EVERY = 200;
/// How long after the end of a stream its client must have heard what is said to all.
const SOON = 5000;

/// Calls on all clients, three at once on each, and what came of them.
class Load {
  calls = [];
  #number = 0;
  #goesOn = true;

  constructor(clients) {
    this.done = Promise.all(clients.map((client) => this.#work(client)));
  }

  async stop() {
    this.#goesOn = false;
    await this.done;
  }

  async #work(client) {
    while (this.#goesOn) {
      const seconds = Number((0.3 + this.#number / 1e6).toFixed(6));
      const messages = [1, 2].map(() => `message ${this.#number++}`);
      await Promise.all([
        this.#call(client, "sleep", { seconds }, `slept ${seconds} s`),
        ...messages.map((message) => this.#call(client, "echo", { message }, message)),
      ]);
      await sleep(300 + Math.random() * 400);
    }
  }

  async #call(client, tool, args, wanted) {
    const began = Date.now();
    const got = await client.call(tool, args, LIMIT).catch(String);
    const failed = got === wanted ? undefined : got;
    this.calls.push({ client, args: JSON.stringify(args), began, took: Date.now() - began, failed });
  }
}

/// Says something to all sessions again and again, and answers how long after `since` the last client had heard of it.
async function allHear(nodes, clients, since) {
  const heard = () => Promise.all(clients.map((client) => client.heard()));
  const before = await heard();
  for (;;) {
    await Promise.all(nodes.all.map((node) => node.notify()));
    await sleep(100);
    const now = await heard();
    const deaf = clients.filter((_, i) => now[i] === before[i]);
    if (deaf.length === 0) return { took: Date.now() - since, deaf: [] };
    if (Date.now() - since > SOON) return { took: Date.now() - since, deaf: deaf.map((client) => client.kind) };
  }
}

/// What every kind of client has been through.
function report(clients, calls) {
  for (const kind of KINDS) {
    const of = calls.filter((call) => call.client.kind === kind);
    const served = of.filter((call) => !call.failed).map((call) => call.took);
    const failed = of.filter((call) => call.failed);
    const said = [...new Set(failed.map((call) => call.failed.slice(0, 90)))].join("; ");
    const latest = failed.length ? `, the last after ${Math.max(...failed.map((call) => call.took))} ms (${said})` : "";
    console.log(`     ${kind}: ${of.length} calls, the longest ${Math.max(...served)} ms, ${failed.length} errors${latest}`);
  }
}

/// Which clients have had more than one session, and which sessions are over.
async function lost(url, clients) {
  const lost = [];
  for (const { kind, id, wire } of clients) {
    const ids = new Set((await wire()).map((exchange) => exchange.id).filter(Boolean));
    if (ids.size !== 1) lost.push(`${kind} has had ${ids.size} sessions`);
    const { status } = await ping(url, id);
    if (status !== 200) lost.push(`${kind}: ${status}`);
  }
  return lost;
}

/// mcp1 (1.30.0) takes any answer that is no success, but for a 404, for its own end: what is called on it then fails, though its
/// session lives. Balancers answer so where a node broke off before its answer.
async function clientsThatGaveUp(clients) {
  const gaveUp = new Set();
  for (const client of clients.filter(({ kind }) => kind === "mcp1")) {
    const exchanges = await client.wire();
    if (exchanges.some(({ method, status }) => method === "POST" && status === 502)) gaveUp.add(client);
  }
  return gaveUp;
}

async function restarts(check, nodes, clients) {
  const load = new Load(clients);
  const hearing = [];
  for (let i = 0; i < 2 * RESTARTS_EACH; i++) {
    const asked = Date.now();
    const code = await nodes.all[i % 2].stop();
    if (code !== 0) check(`node ${i % 2} ends by itself`, code, 0);
    await nodes.start(i % 2);
    hearing.push(await allHear(nodes, clients, asked + LINGER));
  }
  await load.stop();
  report(clients, load.calls);
  const longest = Math.max(...hearing.map(({ took }) => took));
  console.log(`     ${clients.length} clients heard what was said to all within ${longest} ms of the end of their streams`);
  const failed = load.calls.filter((call) => call.failed);
  check(`answers each of ${load.calls.length} calls`, failed.map(({ client, failed }) => `${client.kind}: ${failed}`), []);
  check("says to each client what it says to all, soon", hearing.flatMap(({ deaf }) => deaf), []);
}

async function kills(check, nodes, proxy, clients) {
  const load = new Load(clients);
  for (let i = 0; i < KILLS; i++) {
    await sleep(1500);
    await nodes.kill(i % 2);
    await sleep(1500);
    await nodes.start(i % 2);
    // Python's clients open their stream anew after one cut, and not after a second.
    if (i > 0) continue;
    const gaveUp = await clientsThatGaveUp(clients);
    const { deaf } = await allHear(nodes, clients.filter((client) => !gaveUp.has(client)), Date.now());
    check("after one kill all have streams again", deaf, []);
  }
  await sleep(1500);
  await load.stop();
  report(clients, load.calls);
  const gaveUp = await clientsThatGaveUp(clients);
  console.log(`     ${gaveUp.size} of ${CLIENTS_EACH} clients mcp1 closed themselves at a 502`);
  const { deaf } = await allHear(nodes, clients, Date.now());
  console.log(`     after ${KILLS} kills ${deaf.length} of ${clients.length} clients have no stream: ${[...new Set(deaf)]}`);
  check("after which all but Python's have streams again", deaf.filter((kind) => !kind.startsWith("mcp")), []);
  const broken = new Set(proxy.broken.map((body) => JSON.stringify(JSON.parse(body).params?.arguments)));
  const failed = load.calls.filter((call) => call.failed);
  const others = failed.filter((call) => !broken.has(call.args) && !gaveUp.has(call.client));
  check("breaks off calls that a killed node had", failed.length > 0, true);
  check("and no others", others.map(({ client, failed }) => `${client.kind}: ${failed}`), []);
  const late = load.calls.filter((call) => call.took > LIMIT + 1000);
  check("of which every client hears in time", late.map(({ client }) => client.kind), []);
}

async function play(check, flags) {
  const nodes = new Nodes([...flags, `--linger=${LINGER}ms`]);
  await Promise.all([nodes.start(0), nodes.start(1)]);
  const proxy = new Proxy(nodes);
  proxy.watch(ASKED_EVERY);
  const url = await proxy.start();
  const puppets = KINDS.map((kind) => new Puppet(kind));
  const connected = puppets.flatMap((puppet) => {
    return Array.from({ length: CLIENTS_EACH }, async () => ({ kind: puppet.kind, ...(await puppet.connect(url)) }));
  });
  const clients = await Promise.all(connected);
  for (const client of clients) await until(() => client.stream());
  const streams = await Promise.all(clients.map((client) => client.stream()));
  check(`${clients.length} clients have streams`, streams.map((stream) => stream?.status), clients.map(() => 200));

  await restarts(check, nodes, clients);
  check("loses no session to a restart", await lost(url, clients), []);
  check("and breaks nothing off", proxy.broken.map(String), []);
  await kills(check, nodes, proxy, clients);
  check("loses no session to a kill", await lost(url, clients), []);
  console.log(`     refused ${proxy.refused}, broken ${proxy.broken.length}, ${JSON.stringify(proxy.statuses)}`);
  check("writes no id into a log", clients.some(({ id }) => nodes.logs().some((log) => log.includes(id))), false);
}

const [store] = process.argv.slice(2);
const checks = new Checks();
const redis = store === "redis" && (await Redis.start());
const check = checks.named(store.split(":")[0]);
await play(check, [`--store=${redis ? `redis://127.0.0.1:${redis.port}` : store}`]).catch((error) => {
  check(`goes through: ${error.stack}`, false, true);
});
if (redis) await redis.remove();
checks.finish("rolling");
