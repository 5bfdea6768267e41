// How sessions live and end, seen by real clients: `node life.mjs CLIENT...`. Every scenario has a server of its own, with
// an idle timeout of two seconds, and all go on at the same time.

import { setTimeout as sleep } from "node:timers/promises";
import { Checks, NOT_FOUND, ping, Puppet, Server, until } from "./puppets.mjs";

const IDLE = 2000;

const scenarios = {
  async "a long call"({ puppet, server, check }) {
    const client = await connect(puppet, server);
    check("is answered after three idle times", await client.call("sleep", { seconds: 6 }), "slept 6 s");
    check("and its session lives", await client.call("counter"), "1");
    await client.close();
  },

  async "an idle stream"({ puppet, server, check }) {
    const client = await connect(puppet, server);
    check("one session", await client.call("counter"), "1");
    await sleep(5 * IDLE);
    check("is open after five idle times", (await client.stream()).ended, false);
    check("and its session is served", await client.call("counter"), "2");
    await client.close();
  },

  async "a killed client"({ doomed, server, check }) {
    const client = await connect(doomed, server);
    await client.call("counter");
    await sleep(IDLE * 1.5);
    check("is there while it has a stream", (await server.sessions()).length, 1);
    const hits = await server.hits();
    doomed.kill();
    await sleep(IDLE / 2);
    check("is not gone before its time", (await server.sessions()).length, 1);
    const gone = until(async () => !(await server.sessions()).length);
    const told = until(async () => (await server.hits()) > hits);
    check("is gone soon after", (await gone) < IDLE / 2 + 2000, true);
    check("the inner service is told soon after", (await told) < IDLE / 2 + 2000, true);
    check("once", (await server.hits()) - hits, 1);
    check("is 404 when it comes back", await ping(server.url, client.id), { status: 404, text: NOT_FOUND });
  },

  async "a revoked session"({ puppet, server, check }) {
    const client = await connect(puppet, server);
    const slept = client.call("sleep", { seconds: 30 }).catch(() => "cut");
    await sleep(500);
    const [{ reference }] = await server.sessions();
    check("is ended by the admin", (await server.end(`sessions/${reference}`)).status, 204);
    const took = await until(async () => (await client.stream()).ended);
    check("its stream ends within a second", took < 1000, true);
    // What is a failure to the client depends on the client. What comes back is 404, whatever it is.
    const again = await client.call("echo", { message: "hello" }).catch(() => "failed");
    check("the next call fails", again, "failed");
    check("because of a 404", await client.status("POST"), 404);
    check("the call under way is not answered", await Promise.race([slept, sleep(100, "waits")]) === "slept 30 s", false);
    check("the log tells of it", server.log.includes("refused a request"), true);
  },

  async "a shutdown"({ puppet, server, check }) {
    const clients = await Promise.all(Array.from({ length: 20 }, () => connect(puppet, server)));
    // The Python clients ask for the list of tools after their first call.
    await clients[0].call("sleep", { seconds: 0 });
    const slept = clients[0].call("sleep", { seconds: 2 });
    await sleep(500);
    const began = Date.now();
    const exit = server.stop();
    check("answers what is under way", await slept, "slept 2 s");
    check("leaves with success", await exit, 0);
    check("within its time of grace", Date.now() - began < 8000, true);
    const streams = await Promise.all(clients.map((client) => client.stream()));
    check("ends all streams", streams.filter((stream) => stream.ended).length, 20);
  },

  async "a shutdown in a hurry"({ puppet, server, check }) {
    const client = await connect(puppet, server);
    client.call("sleep", { seconds: 60 });
    await sleep(500);
    const began = Date.now();
    check("leaves with success", await server.stop(), 0);
    const took = Date.now() - began;
    check("gives what is under way its time of grace", took > 900, true);
    check("and no more", took < 5000, true);
  },

  async "two principals"({ puppet, server, check }) {
    const alice = await connect(puppet, server, "s3cret");
    const bob = await connect(puppet, server, "0ther");
    check("nobody is let in without a token", (await ping(server.url, alice.id)).status, 401);
    check("one's session is 404 to the other", await ping(server.url, alice.id, "0ther"), { status: 404, text: NOT_FOUND });
    check("as one that never was", await ping(server.url, "never-was", "0ther"), { status: 404, text: NOT_FOUND });
    check("and still served to its owner", await alice.call("counter"), "1");
    check("one is logged out", JSON.parse((await server.end("principals/alice")).text), { ended: 1 });
    check("and fails", await alice.call("counter").catch(() => "failed"), "failed");
    check("because of a 404", await alice.status("POST"), 404);
    check("the other goes on", await bob.call("counter"), "1");
    check("with the stream as well", (await bob.stream()).ended, false);
    await bob.close();
  },
};

const FLAGS = {
  "a shutdown in a hurry": ["--grace=1s"],
  "two principals": ["--auth=s3cret=alice", "--auth=0ther=bob"],
};

const checks = new Checks();
const ids = [];

/// A client whose GET stream is open.
async function connect(puppet, server, token) {
  const client = await puppet.connect(server.url, token);
  ids.push(client.id);
  await until(() => client.stream());
  return client;
}

async function play(cast, name) {
  const check = checks.named(`${cast.puppet.kind}, ${name}`);
  try {
    const server = await Server.start([`--idle-timeout=${IDLE}ms`, ...(FLAGS[name] ?? [])]);
    await scenarios[name]({ ...cast, server, check });
    await server.stop("SIGKILL");
    check("no session id is in the log", ids.some((id) => server.log.includes(id)), false);
  } catch (error) {
    check(`goes through: ${error.stack}`, false, true);
  }
}

const casts = process.argv.slice(2).map((kind) => ({ puppet: new Puppet(kind), doomed: new Puppet(kind) }));
await Promise.all(casts.flatMap(({ puppet, doomed }) => [puppet.ready(), doomed.ready()]));
await Promise.all(casts.flatMap((cast) => Object.keys(scenarios).map((name) => play(cast, name))));
checks.named("all")("clients had sessions", ids.length > 0 && ids.every((id) => id.length > 8), true);
checks.finish("life");
