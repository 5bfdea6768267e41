import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as Transport, StreamableHTTPError } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { main } from "./scenarios.mjs";

await main({
  name: "ts1",
  Client,
  Transport,
  limited: (timeout) => [undefined, { timeout }],
  status: (error) => (error instanceof StreamableHTTPError ? error.code : error),
});
