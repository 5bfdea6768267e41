// Stands in for the Ruby SDK's transport where there is no gem to install: it answers what it does not know with 404 and a
// JSON body whose id is null, calls with JSON, and a session's DELETE with 200.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const sessions = new Set();
const tools = {
  echo: ({ message }) => message,
  sleep: async ({ seconds }) => (await sleep(seconds * 1000), `slept ${seconds} s`),
};
const listed = Object.keys(tools).map((name) => ({ name, inputSchema: { type: "object" } }));
const methods = {
  initialize: () => ({
    protocolVersion: "2025-11-25",
    capabilities: { tools: {} },
    serverInfo: { name: "rack", version: "1" },
  }),
  ping: () => ({}),
  "tools/list": () => ({ tools: listed }),
  "tools/call": async ({ name, arguments: given }) => ({ content: [{ type: "text", text: await tools[name](given) }] }),
};

createServer(async (request, response) => {
  const answer = (status, body, headers) => {
    response.writeHead(status, { "content-type": "application/json", ...headers });
    response.end(body && JSON.stringify({ jsonrpc: "2.0", ...body }));
  };
  const refuse = (status, message, id = null) => answer(status, { error: { code: -32600, message }, id });
  const id = request.headers["mcp-session-id"];
  const body = (await request.toArray()).join("");
  const { method, params = {}, id: call } = body ? JSON.parse(body) : {};
  if (!id && method !== "initialize") return refuse(400, "Missing session ID");
  if (id && !sessions.has(id)) return refuse(404, "Session not found");
  if (request.method === "DELETE") return sessions.delete(id), answer(200, { result: { success: true } });
  if (request.method === "GET") {
    response.writeHead(200, { "content-type": "text/event-stream" });
    return void response.write(": open\n\n");
  }
  if (call === undefined || !method) return answer(202);
  if (!methods[method]) return answer(200, { error: { code: -32601, message: "Method not found" }, id: call });
  if (method === "tools/call" && !tools[params.name])
    return answer(200, { error: { code: -32602, message: "Unknown tool" }, id: call });
  const headers = id ? {} : { "mcp-session-id": randomUUID() };
  if (!id) sessions.add(headers["mcp-session-id"]);
  answer(200, { result: await methods[method](params), id: call }, headers);
}).listen(process.env.PORT, "127.0.0.1");
