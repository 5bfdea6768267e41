// Servers to stand behind the gateway, each a process that can be restarted at its address, and the gateway itself.

import { createConnection, createServer } from "node:net";
import { once } from "node:events";
import { request } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { start } from "../clients/puppets.mjs";

const HERE = import.meta.dirname;
const TARGET = process.env.CARGO_TARGET_DIR ?? `${HERE}/../../target`;
const EXAMPLES = `${TARGET}/debug/examples`;
const PYTHON = (venv) => `${HERE}/../clients/.venv/${venv}/bin/python`;
const SLEEP = (seconds) => ["sleep", { seconds }];

/// How to start each, and a tool of it that answers at once and one that takes its time.
export const SERVERS = {
  "server-everything 2026.8.31": {
    command: ["node", "node_modules/@modelcontextprotocol/server-everything/dist/index.js", "streamableHttp"],
    echoes: "Echo: hello",
    slow: (duration) => ["trigger-long-running-operation", { duration, steps: Math.ceil(duration / 10) }],
  },
  "TypeScript SDK 1.32.2": { command: ["node", "typescript.mjs"] },
  "Python SDK 1.30.0": { command: [PYTHON("mcp1"), "python.py"] },
  "Python SDK 2.3.0": { command: [PYTHON("mcp2"), "python.py"] },
  "FastMCP 4.2.3": { command: [`${HERE}/.venv/bin/python`, "standalone.py"] },
  "rmcp 3.11.0": { command: [`${EXAMPLES}/server`], flags: (port) => ["--store=memory", `--port=${port}`] },
  "as Ruby's SDK": { command: ["node", "rack.mjs"] },
};

export class Upstream {
  constructor(name) {
    Object.assign(this, { name, echoes: "hello", slow: SLEEP, ...SERVERS[name] });
  }

  /// Starts it, at the port that it had before if it has been running.
  async start() {
    this.port ??= await freePort();
    const [command, ...args] = this.command;
    this.child = start(command, [...args, ...(this.flags?.(this.port) ?? [])], {
      cwd: HERE,
      env: { ...process.env, PORT: this.port },
      stdio: "ignore",
    });
    await listening(this.port);
  }

  /// As a deploy does: what it had in memory is gone.
  async restart() {
    this.child.kill("SIGKILL");
    await this.child.gone;
    await this.start();
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }
}

export class Gateway {
  log = "";

  /// In front of a server, with more flags.
  static async start(upstream, ...flags) {
    const gateway = new Gateway();
    const args = ["--listen=127.0.0.1:0", `--upstream=${upstream.url}`, ...flags];
    gateway.child = start(`${EXAMPLES}/gateway`, args, { env: { ...process.env, RUST_LOG: "info,mcp_session_layer=debug" } });
    gateway.child.stderr.on("data", (data) => (gateway.log += data));
    for await (const line of createInterface({ input: gateway.child.stdout })) {
      gateway.url = line;
      break;
    }
    if (!gateway.url) throw new Error(`no gateway: ${gateway.log}`);
    return gateway;
  }

  /// Asks it to leave, and answers its exit code.
  async stop() {
    this.child.kill("SIGTERM");
    return this.child.gone;
  }
}

/// Sends a request and answers its response, whose body is still to come.
export async function ask(url, method, { id, body, headers } = {}) {
  const sent = request(url, {
    method,
    agent: false,
    headers: {
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
      "mcp-protocol-version": "2025-11-25",
      ...(id && { "mcp-session-id": id }),
      ...headers,
    },
  });
  sent.end(body && JSON.stringify({ jsonrpc: "2.0", ...body }));
  const [response] = await once(sent, "response");
  return response;
}

export async function text(response) {
  return Buffer.concat(await response.toArray()).toString();
}

/// The status and body of a request on a session. A POST is a ping.
export async function on(url, method, id) {
  const response = await ask(url, method, { id, body: method === "POST" && { id: 1, method: "ping" } });
  return { status: response.statusCode, text: await text(response) };
}

/// Opens a session and answers its id.
export async function open(url) {
  const params = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "raw", version: "1" } };
  const response = await ask(url, "POST", { body: { id: 0, method: "initialize", params } });
  await text(response);
  const id = response.headers["mcp-session-id"];
  if (!id) throw new Error(`no session: ${response.statusCode}`);
  await text(await ask(url, "POST", { id, body: { method: "notifications/initialized" } }));
  return id;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

async function listening(port) {
  for (const began = Date.now(); Date.now() - began < 60_000; await sleep(50)) {
    const connection = createConnection(port, "127.0.0.1");
    const connected = await Promise.race([once(connection, "connect"), once(connection, "error")]).then(
      () => true,
      () => false,
    );
    connection.destroy();
    if (connected && !connection.errored) return;
  }
  throw new Error("the server does not listen");
}
