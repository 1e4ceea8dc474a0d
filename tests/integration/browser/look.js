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
  async open({ width, height, scheme, path = "" }) {
    const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
    page = await context.newPage();
    page.on("pageerror", (error) => complaints.push(error.message));
    page.on("console", (message) => {
      // A task that cannot be followed here is answered with an error, which the page expects.
      if (message.type() === "error" && !message.text().includes("404")) complaints.push(message.text());
    });
    page.on("request", (request) => asked.add(new URL(request.url()).protocol === "data:" ? "data:" : new URL(request.url()).host));
    await page.goto(url + path);
  },
  async text({ selector }) { return (await page.locator(selector).first().innerText()).trim(); },
  async texts({ selector }) { return (await page.locator(selector).allInnerTexts()).map((one) => one.trim()); },
  async count({ selector }) { return page.locator(selector).count(); },
  async wait({ selector }) { await page.locator(selector).first().waitFor({ timeout: 30000 }); },
  async waitText({ selector, text }) {
    await page.locator(selector).filter({ hasText: text }).first().waitFor({ timeout: 30000 });
  },
  async fill({ selector, text }) { await page.fill(selector, text); },
  async select({ selector, value }) { await page.selectOption(selector, value); },
  async click({ selector }) { await page.click(selector); },
  async press({ keys }) { for (const key of keys) await page.keyboard.press(key); },
  async focused() { return page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim()); },
  // What a page of this node gets from elsewhere: a status and a header, or nothing at all.
  async fetched({ from, headers, header }) {
    return page.evaluate(async ([from, headers, header]) => {
      try {
        const response = await fetch(from, { headers });
        return [response.status, response.headers.get(header)];
      } catch (error) {
        return null;
      }
    }, [from, headers, header]);
  },
  // Texts that are seen and do not stand out from what is behind them as WCAG 2.2 AA wants it.
  async pale() {
    return page.evaluate(() => {
      const parts = (colour) => {
        const [red, green, blue, alpha = 1] = colour.match(/[\d.]+/g).map(Number);
        return [red, green, blue, alpha];
      };
      const over = ([r, g, b, a], under) => [r, g, b].map((one, at) => one * a + under[at] * (1 - a));
      const light = (rgb) => {
        const [r, g, b] = rgb.map((one) => one / 255).map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
      const behind = (element) => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) layers.unshift(parts(getComputedStyle(one).backgroundColor));
        return layers.reduce((under, layer) => over(layer, under), isDark ? [18, 18, 18] : [255, 255, 255]);
      };
      const opacity = (element) => {
        let all = 1;
        for (let one = element; one; one = one.parentElement) all *= Number(getComputedStyle(one).opacity);
        return all;
      };
      const found = [];
      const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      while (texts.nextNode()) {
        const element = texts.currentNode.parentElement;
        const words = texts.currentNode.textContent.trim();
        if (!words || !element.checkVisibility() || element.closest(".skip, noscript, option")) continue;
        const style = getComputedStyle(element);
        const ground = behind(element);
        const [r, g, b, a] = parts(style.color);
        const ink = over([r, g, b, a * opacity(element)], ground);
        const [low, high] = [light(ink), light(ground)].sort((one, other) => one - other);
        const ratio = (high + 0.05) / (low + 0.05);
        const size = parseFloat(style.fontSize);
        const isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
        if (ratio < (isLarge ? 3 : 4.5)) found.push(`${words.slice(0, 40)}: ${ratio.toFixed(2)}`);
      }
      return found;
    });
  },
  async wide() { return page.evaluate(() => document.documentElement.scrollWidth > window.innerWidth); },
  async heights({ selector }) { return page.locator(selector).evaluateAll((all) => all.map((one) => one.getBoundingClientRect().height)); },
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
