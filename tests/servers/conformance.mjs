// Runs the official conformance suite against servers directly and through the gateway: nothing that passes directly may fail
// through it, and what is this crate's business has to pass through it.

import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Checks, start } from "../clients/puppets.mjs";
import { Gateway, Upstream } from "./servers.mjs";

const HERE = import.meta.dirname;
// The suite needs Node 22, which comes with it.
const NODE = `${HERE}/node_modules/node/bin/node`;
const SUITES = ["stable", "alpha"];
const REVISIONS = ["2025-03-26", "2025-06-18", "2025-11-25"];
const LIFECYCLE = "server-session-lifecycle";

const checks = new Checks();

/// Each check of each scenario, and how it went.
async function run(suite, url, ...flags) {
  const into = await mkdtemp(join(tmpdir(), "conformance-"));
  const program = `${HERE}/node_modules/conformance-${suite}/dist/index.js`;
  const child = start(NODE, [program, "server", `--url=${url}`, `--output-dir=${into}`, ...flags], { stdio: "ignore" });
  await child.gone;
  const results = new Map();
  for (const folder of await readdir(into)) {
    const scenario = folder.replace(/^server-/, "").replace(/-\d{4}-\d\d-\d\dT.*$/, "");
    const list = JSON.parse(await readFile(join(into, folder, "checks.json"), "utf8"));
    list.forEach(({ id, status }, nth) => results.set(`${scenario} ${id} ${nth}`, status));
  }
  await rm(into, { recursive: true });
  return results;
}

const passing = (results) => [...results].filter(([, status]) => status === "SUCCESS").map(([check]) => check);
const failing = (results) => [...results].filter(([, status]) => status === "FAILURE").map(([check]) => check);

async function play(name, fails) {
  const check = checks.named(name);
  try {
    const upstream = new Upstream(name);
    await upstream.start();
    const gateway = await Gateway.start(upstream);
    const direct = `${upstream.url}/mcp`;
    for (const suite of SUITES) {
      const [without, through] = [await run(suite, direct), await run(suite, gateway.url)];
      const passed = passing(without);
      check(`${suite}: ${passed.length} checks pass directly, enough to mean something`, passed.length > 10, true);
      check(`${suite}: all of them pass through the gateway`, passed.filter((check) => through.get(check) !== "SUCCESS"), []);
      const rebinding = failing(through).filter((check) => check.startsWith("dns-rebinding"));
      check(`${suite}: it protects from DNS rebinding`, [rebinding, through.size > 0], [[], true]);
    }
    for (const revision of REVISIONS) {
      const flags = [`--scenario=${LIFECYCLE}`, `--spec-version=${revision}`];
      const [without, through] = [await run("alpha", direct, ...flags), await run("alpha", gateway.url, ...flags)];
      check(`${LIFECYCLE} at ${revision} fails directly`, failing(without).length > 0, fails);
      check(`${LIFECYCLE} at ${revision} passes through the gateway`, [failing(through), passing(through).length > 1], [[], true]);
    }
    await gateway.stop();
  } catch (error) {
    check(`goes through: ${error.stack}`, false, true);
  }
}

await Promise.all([play("server-everything 2026.8.31", true), play("TypeScript SDK 1.32.2", true)]);
checks.finish("conformance");
