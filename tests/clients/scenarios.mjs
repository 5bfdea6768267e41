// What every TypeScript client has to live through. ts1.mjs and ts2.mjs say how theirs is built.

import { request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const MIB = "x".repeat(1024 * 1024);
const NOT_FOUND = '{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}';

const scenarios = {
  async tools(sdk, url, check) {
    const { client } = await connect(sdk, url);
    const { tools } = await client.listTools();
    check("lists the tools", tools.map((tool) => tool.name).sort(), ["add", "counter", "echo"]);
    check("echo answers", await call(client, "echo", { message: "hello" }), "hello");
    check("add adds", await call(client, "add", { a: 2, b: 3 }), "5");
    check("counter starts", await call(client, "counter"), "1");
    check("counter goes on", await call(client, "counter"), "2");
    const other = await connect(sdk, url);
    check("another session has its own counter", await call(other.client, "counter"), "1");
    await other.client.close();
    await client.close();
  },

  async stream(sdk, url, check) {
    const { client, transport, wire } = await connect(sdk, url);
    const get = () => wire.find((exchange) => exchange.method === "GET");
    await until(get);
    check("opens the GET stream", get().status, 200);
    check("as an event stream", get().type, "text/event-stream");
    await sleep(1000);
    check("calls go on beside it", await call(client, "echo", { message: "hello" }), "hello");
    check("it stays open while silent", get().ended, false);
    await endFromOutside(url, transport.sessionId, check);
    await until(() => get().ended);
    check("the stream ends with its session", get().ended, true);
    await client.close();
  },

  async delete(sdk, url, check) {
    const { client, transport } = await connect(sdk, url);
    const id = transport.sessionId;
    check("the session is alive", await call(client, "echo", { message: "hello" }), "hello");
    await transport.terminateSession();
    check("the client has let go of the id", transport.sessionId, undefined);
    for (const method of ["POST", "GET", "DELETE"]) {
      const answer = await raw(url, method, id);
      check(`${method} with the dead id is 404`, answer.status, 404);
      check(`${method} is told why`, answer.text, NOT_FOUND);
    }
    await client.close();
  },

  async ended(sdk, url, check) {
    const { client, transport } = await connect(sdk, url);
    const id = transport.sessionId;
    check("1 MiB goes through a live session", (await call(client, "echo", { message: MIB })).length, MIB.length);
    await endFromOutside(url, id, check);
    const error = await call(client, "echo", { message: MIB }).catch((error) => error);
    check("a 1 MiB call fails with the 404", sdk.status(error), 404);
    check("and shows the user why", error.message.includes(NOT_FOUND), true);
    await client.close();
    const again = newTransport(sdk, url);
    await client.connect(again.transport);
    check("a new connect has a new session", ![id, undefined].includes(again.transport.sessionId), true);
    check("and works", (await call(client, "echo", { message: MIB })).length, MIB.length);
    await client.close();
  },

  // A client that prefers 2026-07-28, and a server that speaks it: nobody needs a session.
  async modern(sdk, url, check) {
    const { client, wire } = await connect(sdk, url, sdk.auto);
    check("calls without a session", await call(client, "echo", { message: "hello" }), "hello");
    check("no session id goes over the wire", wire.filter((exchange) => exchange.id), []);
    await client.close();
  },

  // The same client, and a server that has only sessions.
  async fallback(sdk, url, check) {
    const { client, transport } = await connect(sdk, url, sdk.auto);
    check("takes a session instead", typeof transport.sessionId, "string");
    check("and works", await call(client, "counter"), "1");
    await client.close();
  },
};

/// Runs the scenarios named on the command line: `node ts1.mjs URL SCENARIO...`. Or obeys: `node ts1.mjs puppet`.
export async function main(sdk) {
  if (process.argv[2] === "puppet") return (await import("./puppet.mjs")).obey(sdk);
  const [url, ...names] = process.argv.slice(2);
  let passed = 0;
  let failed = 0;
  for (const name of names) {
    const check = (what, got, wanted) => {
      const ok = JSON.stringify(got) === JSON.stringify(wanted);
      ok ? passed++ : failed++;
      const but = ok ? "" : `: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`;
      console.log(`${ok ? "ok  " : "FAIL"} ${sdk.name} ${name}: ${what}${but}`);
    };
    try {
      await scenarios[name](sdk, url, check);
    } catch (error) {
      failed++;
      console.log(`FAIL ${sdk.name} ${name}: ${error.stack}`);
    }
  }
  console.log(`${sdk.name}: ${passed} passed, ${failed} failed`);
  process.exit(failed || !passed ? 1 : 0);
}

async function connect(sdk, url, options) {
  const client = new sdk.Client({ name: sdk.name, version: "1" }, options);
  const { transport, wire } = newTransport(sdk, url);
  await client.connect(transport);
  return { client, transport, wire };
}

/// A transport, and a record of what it sends and gets.
export function newTransport(sdk, url, headers) {
  const wire = [];
  const watched = async (target, init) => {
    const response = await fetch(target, init);
    const exchange = {
      method: init.method,
      status: response.status,
      type: response.headers.get("content-type"),
      id: new Headers(init.headers).get("mcp-session-id") ?? response.headers.get("mcp-session-id"),
      ended: false,
    };
    wire.push(exchange);
    if (init.method !== "GET" || !response.ok) return response;
    const flush = () => void (exchange.ended = true);
    return new Response(response.body.pipeThrough(new TransformStream({ flush })), response);
  };
  return { transport: new sdk.Transport(new URL(url), { fetch: watched, requestInit: { headers } }), wire };
}

/// `options`: what callTool is given besides.
export async function call(client, name, args = {}, options = []) {
  const { content } = await client.callTool({ name, arguments: args }, ...options);
  return content[0].text;
}

async function endFromOutside(url, id, check) {
  const { status } = await raw(url, "DELETE", id);
  check("the session is ended from outside", Math.floor(status / 100), 2);
}

/// A request past the client, on a connection of its own: its status and body.
async function raw(url, method, id) {
  const headers = {
    accept: "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2025-11-25",
    "mcp-session-id": id,
  };
  const response = await new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, resolve).on("error", reject);
    sent.end(method === "POST" ? '{"jsonrpc":"2.0","id":1,"method":"ping"}' : undefined);
  });
  const chunks = await response.toArray();
  return { status: response.statusCode, text: Buffer.concat(chunks).toString() };
}

/// Waits until it is so, 10 seconds at most. What comes next checks it.
async function until(so) {
  for (let i = 0; i < 200 && !so(); i++) await sleep(50);
}
