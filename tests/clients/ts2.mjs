import { Client, SdkHttpError, StreamableHTTPClientTransport as Transport } from "@modelcontextprotocol/client";
import { main } from "./scenarios.mjs";

await main({
  name: "ts2",
  Client,
  Transport,
  limited: (timeout) => [{ timeout }],
  status: (error) => (error instanceof SdkHttpError ? error.data.status : error),
  auto: { versionNegotiation: { mode: "auto" } },
});
