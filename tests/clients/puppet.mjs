// Does with TypeScript clients what life.mjs says, line by line; see puppets.mjs.

import { createInterface } from "node:readline";
import { call, newTransport } from "./scenarios.mjs";

export async function obey(sdk) {
  const connections = new Map();
  const does = {
    ready: async () => {},
    async connect({ name, url, headers }) {
      const client = new sdk.Client({ name: sdk.name, version: "1" });
      const { transport, wire } = newTransport(sdk, url, headers);
      const connection = { client, wire, heard: 0 };
      client.fallbackNotificationHandler = async () => void connection.heard++;
      await client.connect(transport);
      connections.set(name, connection);
    },
    call: ({ name, tool, args, limit }) => call(connections.get(name).client, tool, args, limit && sdk.limited(limit)),
    heard: async ({ name }) => connections.get(name).heard,
    wire: async ({ name }) => connections.get(name).wire,
    close: async ({ name }) => connections.get(name).client.close(),
  };
  // A stream that is cut leaves rejections behind that nobody waits for.
  process.on("unhandledRejection", () => {});
  const say = (line) => console.log(JSON.stringify(line));
  for await (const line of createInterface({ input: process.stdin })) {
    const order = JSON.parse(line);
    does[order.do](order).then(
      (result) => say({ order: order.order, result }),
      (error) => say({ order: order.order, error: String(error.message) }),
    );
  }
  process.exit();
}
