// What stands before nodes, as a load balancer does.

import { createServer, request } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { Server } from "./puppets.mjs";

/// Nodes that can be stopped and come back, each at another port.
export class Nodes {
  all = [];
  #ever = [];

  constructor(flags, env = () => ({})) {
    this.flags = flags;
    this.env = env;
  }

  async start(at) {
    this.all[at] = await Server.start(this.flags, this.env(at));
    this.#ever.push(this.all[at]);
  }

  async kill(at) {
    await this.all[at].stop("SIGKILL");
  }

  /// Of the nodes that are there, and of those that were.
  logs() {
    return this.#ever.map((node) => node.log);
  }
}

/// Gives each request to the next of two nodes that is ready, and to another one if no connection comes about. Counts what goes back.
/// As balancers do, it sends nothing twice that may change something, and answers 502 if a node breaks off before its answer.
export class Proxy {
  statuses = {};
  refused = 0;
  /// The bodies of the POSTs that broke off with their node.
  broken = [];
  unavailable = [];
  /// The clocks of the nodes, as their last answers told them.
  clocks = [];
  served = [0, 0];
  /// The node that was asked last.
  last = 0;
  /// Called at each POST that breaks.
  onBreak = () => {};
  #next = 0;
  #asleep = new Set();

  constructor(nodes) {
    this.nodes = nodes;
    this.server = createServer(async (incoming, outgoing) => {
      const body = Buffer.concat(await incoming.toArray());
      this.#pass(incoming, body, outgoing, this.#choose(), 2);
    });
  }

  async start() {
    await new Promise((resolve) => this.server.listen(0, "127.0.0.1", resolve));
    return `http://127.0.0.1:${this.server.address().port}/mcp`;
  }

  /// Asks each node again and again whether it is ready.
  async watch(every) {
    for (;;) {
      await Promise.all(
        this.nodes.all.map(async (node, at) => {
          const isReady = await node.isReady();
          // Not of the one that has come in its place meanwhile.
          if (node === this.nodes.all[at]) isReady ? this.#asleep.delete(node) : this.#asleep.add(node);
        }),
      );
      await sleep(every);
    }
  }

  #choose() {
    const first = this.#next++ % 2;
    const isAsleep = (at) => this.#asleep.has(this.nodes.all[at]);
    return isAsleep(first) && !isAsleep(1 - first) ? 1 - first : first;
  }

  #pass(incoming, body, outgoing, at, tries) {
    const { method, headers } = incoming;
    const began = Date.now();
    if (method === "POST") this.last = at;
    const onward = request(this.nodes.all[at].url, { method, headers, agent: false });
    // A GET stream is no call: its client opens another one.
    const breaks = () => {
      if (outgoing.destroyed) return;
      if (method === "POST") {
        this.broken.push(body);
        this.onBreak();
      }
      if (outgoing.headersSent) outgoing.destroy();
      else outgoing.writeHead(502).end("Bad Gateway");
    };
    onward.on("response", (answer) => {
      const what = `${method} ${answer.statusCode}`;
      this.statuses[what] = (this.statuses[what] ?? 0) + 1;
      this.served[at]++;
      this.clocks[at] = new Date(answer.headers.date);
      if (answer.statusCode === 503) this.unavailable.push({ began, answered: Date.now() });
      outgoing.writeHead(answer.statusCode, answer.headers);
      answer.on("error", breaks).pipe(outgoing);
    });
    onward.on("error", (error) => {
      const isRefused = error.syscall === "connect";
      if (isRefused) this.refused++;
      const mayGoElsewhere = (isRefused || method === "GET") && !outgoing.headersSent && !outgoing.destroyed;
      mayGoElsewhere && tries > 1 ? this.#pass(incoming, body, outgoing, 1 - at, tries - 1) : breaks();
    });
    outgoing.on("close", () => onward.destroy());
    onward.end(body);
  }
}
