// What runs in the page: one of the two official clients, and nothing to help it with sessions. run.mjs calls `mcp`.

import { Client as Client1 } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport1 } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Client as Client2, StreamableHTTPClientTransport as Transport2 } from "@modelcontextprotocol/client";

const sdks = {
  ts1: { Client: Client1, Transport: Transport1, status: (error) => error.code },
  ts2: { Client: Client2, Transport: Transport2, status: (error) => error.data?.status },
};

let sdk, client, transport;

window.mcp = {
  /// Opens a session, and says its id if the browser lets the page read it.
  async open(name, url) {
    document.querySelector("#origin").textContent = location.origin;
    document.querySelector("#server").textContent = new URL(url).origin;
    sdk = sdks[name];
    client = new sdk.Client({ name: `${name} in a page`, version: "1" });
    transport = new sdk.Transport(new URL(url));
    try {
      await client.connect(transport);
    } catch (error) {
      show(`could not connect: ${error.message}`, "bad");
      return { error: error.message };
    }
    const id = transport.sessionId;
    show(id ? "opened a session, and could read its id" : "opened a session, but could not read its id", id ? "" : "bad");
    return { id };
  },

  /// Calls the tool that counts the calls of its session.
  async count() {
    try {
      const { content } = await client.callTool({ name: "counter", arguments: {} });
      show(`called “counter”: ${content[0].text}`);
      return { count: content[0].text };
    } catch (error) {
      show(`called “counter”: status ${sdk.status(error)}, ${error.message}`, "bad");
      return { status: sdk.status(error), message: error.message };
    }
  },

  /// Ends the session as its client does.
  async end() {
    await transport.terminateSession();
    show("ended the session with DELETE");
    return { id: transport.sessionId };
  },
};

function show(text, kind = "") {
  const step = document.createElement("li");
  step.className = kind;
  step.textContent = text;
  document.querySelector("#steps").append(step);
}
