// A page on another origin runs a session, loses it, reads the 404 and starts over; with each of the official clients.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createServer, request } from "node:http";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = new URL(".", import.meta.url).pathname;
const screenshot = process.argv[2];
let passed = 0;
let failed = 0;

const bundle = await build({
  entryPoints: [`${here}page.mjs`],
  bundle: true,
  format: "esm",
  platform: "browser",
  write: false,
  logLevel: "error",
});
const pages = await site();
const strangers = await site();
const { server, url, log } = await serve(pages.origin);
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  for (const sdk of ["ts1", "ts2"]) await starts_over(sdk);
  await others_read_nothing();
  await outside_only_what_may_be_there();
} catch (error) {
  failed++;
  console.log(`FAIL ${error.stack}`);
} finally {
  await browser.close();
  server.kill();
  pages.close();
  strangers.close();
}
console.log(`browser: ${passed} passed, ${failed} failed`);
process.exit(failed || !passed ? 1 : 0);

async function starts_over(sdk) {
  const page = await open(pages);
  const mcp = (verb, ...args) => page.evaluate(([verb, args]) => window.mcp[verb](...args), [verb, args]);
  const { id } = await mcp("open", sdk, url);
  check(`${sdk}: the page can read the id`, typeof id, "string");
  check(`${sdk}: calls a tool`, await mcp("count"), { count: "1" });
  check(`${sdk}: and again, in the same session`, await mcp("count"), { count: "2" });
  check(`${sdk}: the session is ended behind its back`, Math.floor((await raw("DELETE", id)) / 100), 2);
  const lost = await mcp("count");
  check(`${sdk}: the page reads the 404`, lost.status, 404);
  check(`${sdk}: and why`, lost.message.includes("Session not found"), true);
  const again = await mcp("open", sdk, url);
  check(`${sdk}: starts over with a session of another id`, ![undefined, id].includes(again.id), true);
  check(`${sdk}: which counts from the start`, await mcp("count"), { count: "1" });
  if (screenshot && sdk === "ts2") await page.screenshot({ path: screenshot });
  check(`${sdk}: ends it itself`, await mcp("end"), { id: undefined });
  check(`${sdk}: and it is gone`, await raw("POST", again.id), 404);
  await page.close();
}

async function others_read_nothing() {
  const page = await open(strangers);
  const { error } = await page.evaluate((url) => window.mcp.open("ts2", url), url);
  check("a page of another origin does not get in", typeof error, "string");
  await page.close();
}

// The log shows each request with its headers.
async function outside_only_what_may_be_there() {
  check("the log has the header", /"mcp-session-id": Sensitive/.test(log.text), true);
  check("and no id", log.ids.filter((id) => log.text.includes(id)), []);
  check("there were ids to find", log.ids.length > 3, true);
}

/// A page of a site, with its script loaded.
async function open(site) {
  const page = await browser.newPage();
  // Where the id is what a page reads, the log must not have it.
  page.on("response", (response) => {
    const id = response.headers()["mcp-session-id"];
    if (id) log.ids.push(id);
  });
  await page.goto(site.origin);
  await page.waitForFunction(() => window.mcp);
  return page;
}

/// A web site with the page, on an origin of its own.
async function site() {
  const html = readFileSync(`${here}page.html`);
  const script = bundle.outputFiles[0].contents;
  const http = createServer((request, response) => {
    const [type, body] = request.url === "/page.js" ? ["text/javascript", script] : ["text/html", html];
    response.writeHead(200, { "content-type": type }).end(body);
  });
  await new Promise((ready) => http.listen(0, "127.0.0.1", ready));
  return { origin: `http://127.0.0.1:${http.address().port}`, close: () => http.close() };
}

/// The example, which lets pages of one origin in.
async function serve(origin) {
  const program = `${process.env.CARGO_TARGET_DIR ?? "target"}/debug/examples/browser`;
  const env = { ...process.env, PORT: "0", ORIGIN: origin, RUST_LOG: "tower_http=debug,mcp_session_layer=debug" };
  const server = spawn(program, { env, stdio: ["ignore", "pipe", "pipe"] });
  const log = { text: "", ids: [] };
  server.stderr.on("data", (data) => (log.text += data));
  for await (const line of createInterface({ input: server.stdout })) {
    if (line.startsWith("http://")) return { server, url: line.trim(), log };
  }
  throw new Error(`no server: ${log.text}`);
}

/// The status of a request past the browser.
async function raw(method, id) {
  const headers = {
    accept: "application/json, text/event-stream",
    "content-type": "application/json",
    "mcp-session-id": id,
  };
  return new Promise((resolve, reject) => {
    const sent = request(url, { method, headers, agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    sent.on("error", reject).end(method === "POST" ? '{"jsonrpc":"2.0","id":1,"method":"ping"}' : undefined);
  });
}

function check(what, got, wanted) {
  const ok = JSON.stringify(got) === JSON.stringify(wanted);
  ok ? passed++ : failed++;
  console.log(`${ok ? "ok  " : "FAIL"} ${what}${ok ? "" : `: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`}`);
}
