// Real servers behind the gateway are restarted under real clients: `node run.mjs CLIENT...`. All at the same time.

import { Checks, NOT_FOUND, Puppet, until } from "../clients/puppets.mjs";
import { ask, Gateway, on, open, SERVERS, text, Upstream } from "./servers.mjs";

/// Clients that start a new session by themselves when they are told 404. The others tell their user, who connects again.
const START_OVER = new Set(["rmcp"]);
const METHODS = ["POST", "GET", "DELETE"];
const GONE = { status: 404, text: NOT_FOUND };

const checks = new Checks();
const puppets = process.argv.slice(2).map((kind) => new Puppet(kind));

async function play(name) {
  const check = checks.named(name);
  try {
    const upstream = new Upstream(name);
    await upstream.start();
    const gateway = await Gateway.start(upstream);
    const { url } = gateway;
    for (const method of METHODS) check(`${method} of an unknown id is 404`, await on(url, method, "never-was"), GONE);
    const clients = await Promise.all(
      puppets.map(async (puppet) => ({ kind: puppet.kind, puppet, client: await puppet.connect(url) })),
    );
    for (const { kind, client } of clients) check(`${kind} is served`, await echo(client), upstream.echoes);
    await badRequests(url, check);

    const forgotten = await Promise.all(METHODS.map(() => open(url)));
    await upstream.restart();
    for (const [nth, method] of METHODS.entries())
      check(`${method} of a session that the server forgot is 404`, await on(url, method, forgotten[nth]), GONE);
    const live = await open(url);
    for (const { kind, puppet, client } of clients) {
      const answer = await echo(client).catch(() => "failed");
      if (START_OVER.has(kind)) {
        check(`${kind} goes on by itself after the restart`, answer, upstream.echoes);
      } else {
        check(`${kind} is told of the restart`, [answer, await client.status("POST")], ["failed", 404]);
        const again = await puppet.connect(url);
        check(`${kind} connects again and goes on`, await echo(again), upstream.echoes);
        await again.close();
      }
      check("a session of after the restart is untouched", (await on(url, "POST", live)).status, 200);
    }
    await ends(url, live, check);
    check("the gateway leaves when it is asked to", await gateway.stop(), 0);
    check("no session id is in its log", [...forgotten, live].some((id) => gateway.log.includes(id)), false);
  } catch (error) {
    check(`goes through: ${error.stack}`, false, true);
  }
}

function echo(client) {
  return client.call("echo", { message: "hello" });
}

/// However often the server refuses what is asked on a session, the session is none the worse.
async function badRequests(url, check) {
  const id = await open(url);
  const ask400 = () => ask(url, "POST", { id, headers: { "mcp-protocol-version": "1999-01-01" }, body: { id: 2, method: "ping" } });
  for (let nth = 0; nth < 3; nth++) {
    await text(await ask400());
    const call = { name: "no-such-tool", arguments: {} };
    await text(await ask(url, "POST", { id, body: { id: 3, method: "tools/call", params: call } }));
    await text(await ask(url, "POST", { id, body: { id: 4, method: "no/such/method" } }));
  }
  check("bad requests end nothing", (await on(url, "POST", id)).status, 200);
}

/// A session lives with its stream until its end, and the stream ends with it.
async function ends(url, id, check) {
  const stream = await ask(url, "GET", { id });
  check("its stream is an event stream", stream.headers["content-type"].split(";")[0], "text/event-stream");
  let ended = false;
  stream.on("end", () => (ended = true)).resume();
  check("DELETE of it is a success", Math.floor((await on(url, "DELETE", id)).status / 100), 2);
  await until(() => ended);
  check("its stream ends with it", ended, true);
  for (const method of METHODS) check(`${method} of it is 404`, await on(url, method, id), GONE);
}

await Promise.all(puppets.map((puppet) => puppet.ready()));
await Promise.all(Object.keys(SERVERS).map(play));
checks.finish("servers");
