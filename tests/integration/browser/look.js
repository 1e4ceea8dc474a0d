// Looks at the dashboard as a person would: `node look.js URL FOLDER` does what the test tells on
// stdin, one JSON line a step, and answers each with a line.
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const [url, folder] = process.argv.slice(2);
const flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
  "--disable-background-networking", "--disable-component-update", "--disable-sync"];
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: flags });
let page;
const complaints = [];
const asked = new Set();

const steps = {
  async open({ width, height, scheme }) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    page = await context.newPage();
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      // A task that cannot be followed here is answered with an error, which the page expects.
      if (message.type() === "error" && !message.text().includes("404")) complaints.push(message.text());
    });
    page.on("request", (request) => asked.add(new URL(request.url()).protocol === "data:" ? "data:" : new URL(request.url()).host));
    await page.goto(url);
  },
  async text({ selector }) { return (await page.locator(selector).first().innerText()).trim(); },
  async texts({ selector }) { return (await page.locator(selector).allInnerTexts()).map((one) => one.trim()); },
  async wait({ selector }) { await page.locator(selector).first().waitFor({ timeout: 30000 }); },
  async waitText({ selector, text }) {
    await page.locator(selector).filter({ hasText: text }).first().waitFor({ timeout: 30000 });
  },
  async fill({ selector, text }) { await page.fill(selector, text); },
  async select({ selector, value }) { await page.selectOption(selector, value); },
  async click({ selector }) { await page.click(selector); },
  async press({ keys }) { for (const key of keys) await page.keyboard.press(key); },
  async focused() { return page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim()); },
  async wide() { return page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth); },
  async colour({ selector }) { return page.locator(selector).first().evaluate((one) => getComputedStyle(one).backgroundColor); },
  async shot({ name }) { await page.screenshot({ path: `${folder}/${name}.png`, fullPage: true }); },
  async complaints() { return complaints; },
  async asked() { return [...asked]; },
};

for await (const line of createInterface({ input: process.stdin })) {
  const step = JSON.parse(line);
  try {
    console.log(JSON.stringify({ done: (await steps[step.do](step)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ failed: String(error.message ?? error) }));
  }
}
await browser.close();
