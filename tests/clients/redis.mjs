// A Redis server of a test's own, which can be killed and comes back with what it had.

import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { start, until } from "./puppets.mjs";

/// A Redis server that writes down what it is told before it says so.
export class Redis {
  static async start() {
    const redis = new Redis();
    redis.port = await freePort();
    redis.directory = await mkdtemp(`${tmpdir()}/cluster-`);
    await redis.up();
    return redis;
  }

  async up() {
    const settings = ["--appendonly", "yes", "--appendfsync", "always", "--save", "", "--bind", "127.0.0.1"];
    const where = ["--port", String(this.port), "--dir", this.directory];
    this.child = start("redis-server", [...where, ...settings], { stdio: "ignore" });
    await until(() => answers(this.port));
  }

  async kill() {
    this.child.kill("SIGKILL");
    await this.child.gone;
  }

  async remove() {
    await this.kill();
    await rm(this.directory, { recursive: true });
  }
}

/// A port that nobody listens at, most likely for a while.
async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/// Whether Redis has read its file and answers.
function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write("PING\r\n"));
    socket.on("data", (data) => (socket.destroy(), resolve(String(data).startsWith("+PONG"))));
    socket.on("error", () => resolve(false));
  });
}
