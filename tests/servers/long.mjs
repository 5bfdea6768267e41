// Real servers behind the gateway are asked for something that takes long: `node long.mjs SECONDS`. A session may be idle for a
// fifth of it, so what is not in use meanwhile is over.

import { Checks, NOT_FOUND } from "../clients/puppets.mjs";
import { ask, Gateway, on, open, SERVERS, text, Upstream } from "./servers.mjs";

const seconds = Number(process.argv[2]);
const checks = new Checks();

async function play(name) {
  const check = checks.named(name);
  try {
    const upstream = new Upstream(name);
    await upstream.start();
    const { url } = await Gateway.start(upstream, `--idle-timeout=${Math.ceil(seconds / 5)}s`);
    const [calling, listening, idle] = [await open(url), await open(url), await open(url)];

    let isOpen = true;
    const stream = await ask(url, "GET", { id: listening });
    stream.on("close", () => (isOpen = false)).resume();
    const [tool, given] = upstream.slow(seconds);
    const began = Date.now();
    const call = { id: 7, method: "tools/call", params: { name: tool, arguments: given } };
    const answer = await text(await ask(url, "POST", { id: calling, body: call }));
    check(`a call takes ${seconds} s`, Date.now() - began >= (seconds - 1) * 1000, true);
    check("and is answered", [answer.includes('"result"'), answer.includes('"isError":true')], [true, false]);
    check("and its session lives", (await on(url, "POST", calling)).status, 200);
    check("a silent stream is open all the time", isOpen, true);
    check("and its session lives", (await on(url, "POST", listening)).status, 200);
    check("a session that nobody uses is over", await on(url, "POST", idle), { status: 404, text: NOT_FOUND });
  } catch (error) {
    check(`goes through: ${error.stack}`, false, true);
  }
}

const alive = setInterval(() => console.log(`.. ${Math.round(process.uptime())} s`), 60_000);
await Promise.all(Object.keys(SERVERS).map(play));
clearInterval(alive);
checks.finish("long");
