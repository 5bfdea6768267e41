// Real clients and servers as processes, to be driven from outside and killed.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { request } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const HERE = import.meta.dirname;
export const NOT_FOUND = '{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"}}';

const children = new Set();
process.on("exit", () => children.forEach((child) => child.kill("SIGKILL")));
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => process.exit(1));
// A call that nobody waits for any more, because a check before it failed.
process.on("unhandledRejection", () => {});

/// Starts a process that does not outlive this one.
export function start(command, args, options) {
  const child = spawn(command, args, options);
  children.add(child);
  child.gone = once(child, "exit").then(([code]) => (children.delete(child), code));
  return child;
}

function puppet(kind) {
  if (kind === "rmcp") return [process.env.RMCP_CLIENT, "puppet::puppet", "--exact", "--ignored", "--nocapture"];
  return kind.startsWith("ts") ? ["node", `${kind}.mjs`, "puppet"] : [`.venv/${kind}/bin/python`, `${kind}.py`, "puppet"];
}

/// A process that holds connected clients of one kind, and does what it is told.
export class Puppet {
  #orders = [];
  #clients = 0;
  #connecting = Promise.resolve();

  constructor(kind) {
    const [command, ...args] = puppet(kind);
    this.kind = kind;
    this.child = start(command, args, { cwd: HERE, stdio: ["pipe", "pipe", "ignore"] });
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      if (!line.startsWith("{")) return;
      const { order, result, error } = JSON.parse(line);
      const { resolve, reject } = this.#orders[order];
      error === undefined ? resolve(result) : reject(new Error(error));
    });
  }

  #tell(what, args) {
    return new Promise((resolve, reject) => {
      const order = this.#orders.push({ resolve, reject }) - 1;
      this.child.stdin.write(`${JSON.stringify({ order, do: what, ...args })}\n`);
    });
  }

  /// Once it is so far: what it is told next does not wait for its start.
  ready() {
    return this.#tell("ready");
  }

  async connect(url, token) {
    const name = `client ${this.#clients++}`;
    const headers = token && { authorization: `Bearer ${token}` };
    // One at a time: of twenty at once each takes so long that its session is idle too long before it is used.
    this.#connecting = this.#connecting.catch(() => {}).then(() => this.#tell("connect", { name, url, headers }));
    await this.#connecting;
    const wire = () => this.#tell("wire", { name });
    return {
      url,
      /// `limit`: how many milliseconds the client gives it.
      call: (tool, args = {}, limit) => this.#tell("call", { name, tool, args, limit }),
      /// How many notifications it has got.
      heard: () => this.#tell("heard", { name }),
      wire,
      id: (await wire()).find((exchange) => exchange.id).id,
      /// The status of what it sent last with this method.
      status: async (method) => (await wire()).findLast((exchange) => exchange.method === method)?.status,
      stream: async () => (await wire()).find((exchange) => exchange.method === "GET"),
      close: () => this.#tell("close", { name }),
    };
  }

  /// As a machine that loses its power does: nothing is said to the server.
  kill() {
    this.child.kill("SIGKILL");
  }
}

/// The server of examples/server.rs, with an admin port.
export class Server {
  log = "";

  static async start(args, env = {}) {
    const server = new Server();
    const target = process.env.CARGO_TARGET_DIR ?? `${HERE}/../../target`;
    const child = start(`${target}/debug/examples/server`, ["--port=0", "--admin-port=0", ...args], {
      env: { ...process.env, RUST_LOG: "info,mcp_session_layer=debug", ...env },
    });
    server.child = child;
    child.stderr.on("data", (data) => (server.log += data));
    const urls = [];
    for await (const line of createInterface({ input: child.stdout })) {
      if (urls.push(line) === 2) break;
    }
    if (urls.length < 2) throw new Error(`no server: ${server.log}`);
    server.admin = new URL(urls[0]).origin;
    server.url = urls[1];
    return server;
  }

  async sessions() {
    return JSON.parse((await send(`${this.admin}/sessions`)).text);
  }

  async hits() {
    return JSON.parse((await send(`${this.admin}/hits`)).text).hits;
  }

  /// Tells all sessions on this node something, on their GET streams.
  async notify() {
    return JSON.parse((await send(`${this.admin}/notify`, { method: "POST" })).text).told;
  }

  /// Whether it says that it should get requests.
  async isReady() {
    const answer = await send(new URL("/ready", this.url)).catch(() => undefined);
    return answer?.status === 200;
  }

  async end(what) {
    return send(`${this.admin}/${what}`, { method: "DELETE" });
  }

  /// Ends it by a signal, and answers how: its exit code, or null if it has to be killed after 20 seconds.
  async stop(signal = "SIGTERM") {
    this.child.kill(signal);
    const patience = setTimeout(() => this.child.kill("SIGKILL"), 20_000);
    const code = await this.child.gone;
    clearTimeout(patience);
    return code;
  }
}

/// A request past the clients, on a connection of its own.
export async function send(url, { method = "GET", headers, body } = {}) {
  const response = await new Promise((resolve, reject) => {
    request(url, { method, headers, agent: false }, resolve).on("error", reject).end(body);
  });
  const chunks = await response.toArray();
  return { status: response.statusCode, text: Buffer.concat(chunks).toString() };
}

/// A POST on a session, with somebody's token.
export function ping(url, id, token) {
  const headers = {
    accept: "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-protocol-version": "2025-11-25",
    "mcp-session-id": id,
    ...(token && { authorization: `Bearer ${token}` }),
  };
  return send(url, { method: "POST", headers, body: '{"jsonrpc":"2.0","id":1,"method":"ping"}' });
}

/// Waits until it is so, 10 seconds at most, and answers how many milliseconds it took.
export async function until(so) {
  const began = Date.now();
  while (!(await so()) && Date.now() - began < 10_000) await sleep(20);
  return Date.now() - began;
}

/// A list of checks, printed as they are made.
export class Checks {
  passed = 0;
  failed = 0;

  named(name) {
    return (what, got, wanted) => {
      const ok = JSON.stringify(got) === JSON.stringify(wanted);
      ok ? this.passed++ : this.failed++;
      const but = ok ? "" : `: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`;
      console.log(`${ok ? "ok  " : "FAIL"} ${name}: ${what}${but}`);
    };
  }

  /// Says how it went, and ends the process accordingly.
  finish(name) {
    console.log(`${name}: ${this.passed} passed, ${this.failed} failed`);
    process.exit(this.failed || !this.passed ? 1 : 0);
  }
}
