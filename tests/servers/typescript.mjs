// A server of the TypeScript SDK, written as its examples are: a map of transports, and 400 for what is not in it. It has
// what the conformance suite asks for.

import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { createMcpExpressApp } from "@modelcontextprotocol/sdk/server/express.js";
import { McpServer, ResourceTemplate } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { CreateMessageResultSchema, ElicitResultSchema, isInitializeRequest } from "@modelcontextprotocol/sdk/types.js";
import { z } from "zod";

const PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const WAV = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAEAfAAABAAgAZGF0YQAAAAA=";
const image = { type: "image", data: PNG, mimeType: "image/png" };
const text = (text) => ({ type: "text", text });
const content = (...content) => ({ content });
const embedded = (uri) => ({ type: "resource", resource: { uri, mimeType: "text/plain", text: "embedded" } });
const message = (content) => ({ role: "user", content });

function server() {
  const server = new McpServer(
    { name: "typescript", version: "1" },
    { capabilities: { logging: {}, resources: { subscribe: true } } },
  );
  const tool = (name, inputSchema, call) => server.registerTool(name, { description: name, inputSchema }, call);

  tool("echo", { message: z.string() }, ({ message }) => content(text(message)));
  tool("sleep", { seconds: z.number() }, async ({ seconds }) => {
    await sleep(seconds * 1000);
    return content(text(`slept ${seconds} s`));
  });
  tool("test_simple_text", {}, () => content(text("This is a simple text response for testing.")));
  tool("test_image_content", {}, () => content(image));
  tool("test_audio_content", {}, () => content({ type: "audio", data: WAV, mimeType: "audio/wav" }));
  tool("test_embedded_resource", {}, () => content(embedded("test://embedded-resource")));
  tool("test_multiple_content_types", {}, () => content(text("several:"), image, embedded("test://mixed-content-resource")));
  tool("test_error_handling", {}, () => ({ ...content(text("This tool intentionally returns an error for testing")), isError: true }));
  tool("test_tool_with_logging", {}, async (_, { sendNotification }) => {
    for (const data of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await sendNotification({ method: "notifications/message", params: { level: "info", data } });
      await sleep(50);
    }
    return content(text("logged"));
  });
  tool("test_tool_with_progress", {}, async (_, { _meta, sendNotification }) => {
    const progressToken = _meta?.progressToken ?? 0;
    for (const progress of [0, 50, 100]) {
      await sendNotification({ method: "notifications/progress", params: { progressToken, progress, total: 100 } });
      await sleep(50);
    }
    return content(text("progressed"));
  });
  // The server asks the client, on the stream of the call; the answer is a request of its own.
  tool("test_sampling", { prompt: z.string() }, async ({ prompt }, { sendRequest }) => {
    const params = { messages: [message(text(prompt))], maxTokens: 100 };
    const asked = await sendRequest({ method: "sampling/createMessage", params }, CreateMessageResultSchema);
    return content(text(`LLM response: ${asked.content.text}`));
  });
  const elicit = async ({ sendRequest }, message, properties, required) => {
    const params = { mode: "form", message, requestedSchema: { type: "object", properties, required } };
    const { action, content: given } = await sendRequest({ method: "elicitation/create", params }, ElicitResultSchema);
    return content(text(`Elicitation completed: action=${action}, content=${JSON.stringify(given)}`));
  };
  tool("test_elicitation", { message: z.string() }, ({ message }, extra) =>
    elicit(extra, message, { username: { type: "string" }, email: { type: "string" } }, ["username", "email"]),
  );
  tool("test_elicitation_sep1034_defaults", {}, (_, extra) =>
    elicit(extra, "defaults", {
      name: { type: "string", default: "John Doe" },
      age: { type: "integer", default: 30 },
      score: { type: "number", default: 95.5 },
      status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
      verified: { type: "boolean", default: true },
    }),
  );

  const resource = (name, uri, mimeType, read) => server.registerResource(name, uri, { mimeType }, read);
  resource("static text", "test://static-text", "text/plain", ({ href: uri }) => ({
    contents: [{ uri, mimeType: "text/plain", text: "This is the content of the static text resource." }],
  }));
  resource("static binary", "test://static-binary", "image/png", ({ href: uri }) => ({
    contents: [{ uri, mimeType: "image/png", blob: PNG }],
  }));
  const template = new ResourceTemplate("test://template/{id}/data", { list: undefined });
  resource("template", template, "application/json", ({ href: uri }, { id }) => ({
    contents: [{ uri, mimeType: "application/json", text: JSON.stringify({ id, templateTest: true }) }],
  }));

  const prompt = (name, argsSchema, get) => server.registerPrompt(name, { description: name, argsSchema }, get);
  prompt("test_simple_prompt", undefined, () => ({ messages: [message(text("This is a simple prompt for testing."))] }));
  prompt("test_prompt_with_arguments", { arg1: z.string(), arg2: z.string() }, ({ arg1, arg2 }) => ({
    messages: [message(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`))],
  }));
  prompt("test_prompt_with_embedded_resource", { resourceUri: z.string() }, ({ resourceUri }) => ({
    messages: [message(embedded(resourceUri)), message(text("Please process the embedded resource above."))],
  }));
  prompt("test_prompt_with_image", undefined, () => ({ messages: [message(image), message(text("Please analyze the image above."))] }));
  return server;
}

const transports = {};

async function post(request, response) {
  const id = request.headers["mcp-session-id"];
  let transport = transports[id];
  if (!transport && !id && isInitializeRequest(request.body)) {
    transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (id) => void (transports[id] = transport),
    });
    transport.onclose = () => delete transports[transport.sessionId];
    await server().connect(transport);
  }
  if (transport) return transport.handleRequest(request, response, request.body);
  const error = { code: -32000, message: "Bad Request: No valid session ID provided" };
  response.status(400).json({ jsonrpc: "2.0", error, id: null });
}

async function others(request, response) {
  const transport = transports[request.headers["mcp-session-id"]];
  if (transport) return transport.handleRequest(request, response);
  response.status(400).send("Invalid or missing session ID");
}

const app = createMcpExpressApp();
app.post("/mcp", post);
app.get("/mcp", others);
app.delete("/mcp", others);
app.listen(process.env.PORT, "127.0.0.1");
