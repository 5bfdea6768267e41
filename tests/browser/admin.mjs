// See `admin` beside this.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const target = process.argv[2];
const puppeteer = createRequire(`${target}/browser/`)("puppeteer-core");

const server = spawn(`${target}/debug/examples/server`, ["--port=0", "--admin-port=0", "--auth=a=alice", "--auth=b=bob"], {
  stdio: ["ignore", "pipe", "ignore"],
});
const lines = createInterface({ input: server.stdout })[Symbol.asyncIterator]();
const admin = new URL("/", (await lines.next()).value);
const mcp = (await lines.next()).value;

async function open(token, name) {
  const answer = await fetch(mcp, {
    method: "POST",
    headers: { authorization: `Bearer ${token}`, accept: "application/json, text/event-stream", "content-type": "application/json" },
    body: JSON.stringify({
      jsonrpc: "2.0", id: 1, method: "initialize",
      params: { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name, version: "1.0" } },
    }),
  });
  await answer.text();
  return answer.status;
}

async function count() {
  return (await (await fetch(new URL("/sessions", admin))).json()).length;
}

// A page on another origin that sends a form as soon as it is asked to.
const elsewhere = createServer((_, answer) => {
  answer.setHeader("content-type", "text/html");
  answer.end(`<form method="post" action="${admin}"><input name="do" value="drain"><button>win</button></form>`);
});
await once(elsewhere.listen(0, "127.0.0.1"), "listening");

const browser = await puppeteer.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--host-resolver-rules=MAP evil.example 127.0.0.1"],
});
try {
  assert.equal(await open("a", "<script>document.title = 'run'</script>"), 200);
  assert.equal(await open("a", "Inspector"), 200);
  assert.equal(await open("b", "A client with a rather long name, and a version"), 200);
  assert.equal(await open("b", "עברית \u202e evil"), 200);
  assert.equal(await open("b", "curl"), 200);

  const page = await browser.newPage();
  await page.setJavaScriptEnabled(false);
  await page.setViewport({ width: 1100, height: 640 });
  const click = (selector) => Promise.all([page.waitForNavigation(), page.click(selector)]).then(([answer]) => answer.status());
  const text = () => page.$eval("body", (body) => body.innerText);

  await page.goto(admin.href);
  assert.equal(await page.title(), "MCP sessions");
  assert.equal((await page.$$("tbody tr")).length, 5);
  assert.equal((await page.$$("script")).length, 0, "a client's name is no markup");
  assert.match(await text(), /<script>document.title/);
  await page.click("tbody tr:nth-child(2) summary");
  await page.screenshot({ path: `${target}/browser/admin.png` });
  console.log("ok: lists five sessions, escaped, without scripts");

  assert.equal(await click("tbody tr:first-child td:last-child button"), 200);
  assert.match(await text(), /1 session ended/);
  assert.equal(await count(), 4);
  console.log("ok: ends one");

  const principal = await page.$eval("tbody tr:first-child summary", (name) => name.innerText);
  await page.click("tbody tr:first-child summary");
  await click("tbody tr:first-child details button");
  assert.ok(!(await text()).includes(principal));
  console.log("ok: ends all of a principal");

  // Elsewhere, with the browser's scripts on as a stranger would have them.
  const stranger = await browser.newPage();
  await stranger.goto(`http://127.0.0.1:${elsewhere.address().port}/`);
  const [refused] = await Promise.all([stranger.waitForNavigation(), stranger.click("button")]);
  assert.equal(refused.status(), 403);
  assert.equal(await open("a", "still"), 200, "it was not drained");
  console.log("ok: a form on another origin is refused");

  const rebound = await stranger.goto(`http://evil.example:${admin.port}/`);
  assert.equal(rebound.status(), 403);
  console.log("ok: a name that means this host is refused");
  await stranger.close();
  await page.bringToFront();

  await page.goto(admin.href);
  await page.click("header summary");
  await click("header button");
  assert.match(await text(), /Draining/);
  assert.equal(await open("a", "late"), 503);
  await page.screenshot({ path: `${target}/browser/admin-draining.png` });
  console.log("ok: drains");
} finally {
  await browser.close();
  elsewhere.close();
  server.kill();
}
