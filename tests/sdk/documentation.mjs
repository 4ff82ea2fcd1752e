// Swagger UI and ReDoc in a real browser that can reach nothing but the gateway: both must come up whole,
// ask nobody else for anything, and have nothing to complain of. TOLLGATE_NODE_MODULES names the folder
// playwright-core is installed in, TOLLGATE_CHROMIUM the browser (chromium of the system).
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.TOLLGATE_NODE_MODULES}/x.js`);
const { chromium } = require("playwright-core");

const { TOLLGATE_URL, TOLLGATE_CHROMIUM = "/usr/bin/chromium" } = process.env;
const origin = new URL(TOLLGATE_URL).origin;
const host = new URL(TOLLGATE_URL).hostname;
const patience = 60_000;

const browser = await chromium.launch({
  executablePath: TOLLGATE_CHROMIUM,
  args: [
    // Root has no sandbox, and the pages are our own.
    ...(process.getuid() === 0 ? ["--no-sandbox"] : []),
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    `--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE ${host}`,
  ],
});

/** Opens a page, lets `visit` look at it, and returns what it asked the gateway for. */
async function open(path, visit) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  page.setDefaultTimeout(patience);
  const [asked, left, complaints] = [[], [], []];
  await context.route("**/*", (route) => {
    const url = new URL(route.request().url());
    if (url.origin === origin) return route.continue();
    if (url.protocol === "blob:" || url.protocol === "data:") return route.continue();
    left.push(url.href);
    return route.abort();
  });
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(`console: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`error: ${error}`));
  page.on("requestfailed", (request) => complaints.push(`failed: ${request.url()}`));
  await page.exposeFunction("violated", (what) => complaints.push(`policy: ${what}`));
  await page.addInitScript(() => {
    addEventListener("securitypolicyviolation", (event) =>
      window.violated(`${event.violatedDirective} ${event.blockedURI}`));
  });
  try {
    await page.goto(TOLLGATE_URL + path);
    await visit(page);
    await page.waitForLoadState("networkidle");
  } catch (error) {
    const text = await page.textContent("body").catch(() => "");
    assert.fail(`${path}: ${error}\n${complaints.join("\n")}\n${text.slice(0, 500)}`);
  }
  assert.deepEqual(left, [], `${path} asks others`);
  assert.deepEqual(complaints, [], `${path} complains`);
  await context.close();
  return asked;
}

const swagger = await open("/docs", async (page) => {
  await page.getByText("Opens an account", { exact: true }).first().waitFor();
  const health = page.locator("#operations-Health-health");
  await health.locator(".opblock-summary-control").click();
  await health.getByRole("button", { name: "Try it out" }).click();
  await health.getByRole("button", { name: "Execute" }).click();
  const live = health.locator(".live-responses-table");
  await live.locator(".response-col_status", { hasText: "200" }).first().waitFor();
  assert.match(await live.textContent(), /message_buffer_size/);
});
assert.ok(swagger.includes("/health"), "Try it out asked the gateway");

await open("/redoc", async (page) => {
  await page.getByRole("heading", { name: "Opens an account" }).first().waitFor();
  // The search runs in a worker made of a blob.
  await page.locator("input[type=text]").first().fill("explain");
  await page.locator("[data-role='search:results'] [role=menuitem], [data-role='search:results'] li").first().waitFor();
});

await browser.close();
console.log("both pages are whole, and nothing left the gateway");
