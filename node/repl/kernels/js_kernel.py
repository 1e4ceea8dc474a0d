# Runs cells of JavaScript on node. `channel.py` and `leading.py` stand in front.
#
# One node lives on; cells share its global scope, so `let`, `const`, functions and globals stay. Queries
# block, as in Python; `await` works too, but what such a cell declares stays inside it.

LOOP = r"""
'use strict';
(() => {
const fs = require('fs'), vm = require('vm'), util = require('util'), crypto = require('crypto');
const [seed, inputs, orders, reports] = process.argv.slice(1).map((word) => JSON.parse(word));
const CHARS_MAX = 32 * 1024, ANSWER_CHARS_MAX = 384 * 1024;
class LLMError extends Error { get name() { return 'LLMError'; } }
class Exit extends Error {}

let waiting = Buffer.alloc(0);
const order = () => {
  for (;;) {
    const end = waiting.indexOf(10);
    if (end >= 0) {
      const line = waiting.subarray(0, end).toString();
      waiting = waiting.subarray(end + 1);
      return JSON.parse(line);
    }
    const chunk = Buffer.alloc(1 << 16);
    const count = fs.readSync(orders, chunk);
    if (count === 0) process.reallyExit(0);
    waiting = Buffer.concat([waiting, chunk.subarray(0, count)]);
  }
};
const report = (message) => {
  let data = Buffer.from(JSON.stringify(message) + '\n');
  while (data.length) data = data.subarray(fs.writeSync(reports, data));
};
const cut = (text, max) => text.length <= max ? text
  : `${text.slice(0, max / 2)}\n[... ${text.length - max} characters cut ...]\n${text.slice(-max / 2)}`;

let asked = 0;
const ask = (calls) => {
  if (!calls.length) return [];
  const id = ++asked;
  report({id, calls});
  for (;;) {
    const heard = order();
    if (heard.id === id) {
      if (heard.results === null) throw new Error('interrupted');
      return heard.results.map(({text, error}) => text ?? new LLMError(error ?? 'no answer'));
    }
  }
};
const one = (kind) => (prompt, model = null) => {
  const [result] = ask([{kind, prompt: String(prompt), model}]);
  if (result instanceof LLMError) throw result;
  return result;
};
const asText = (value) => typeof value === 'string' ? value
  : value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);

const own = new Set(Object.getOwnPropertyNames(globalThis));
const reserved = {
  require, LLMError,
  llm_query: one('llm'), rlm_query: one('rlm'), unfold: (handle) => one('unfold')(handle),
  llm_query_batched: (prompts, model = null) =>
    ask([...prompts].map((prompt) => ({kind: 'llm', prompt: String(prompt), model}))),
  FINAL: (value) => { globalThis.answer = {content: asText(value), ready: true}; },
  SHOW_VARS: () => names().map((name) => `${name}: ${typeof globalThis[name]}`).join('\n'),
};
const restore = () => { for (const name of Object.keys(reserved)) globalThis[name] = reserved[name]; };
const names = () => Object.getOwnPropertyNames(globalThis)
  .filter((name) => !own.has(name) && !(name in reserved) && name !== 'answer' && name !== 'context').sort();
restore();
globalThis.answer = {content: '', ready: false};

const text = (path) => fs.readFileSync(path, 'utf8');
const lazily = (target, name, read) => Object.defineProperty(target, name, {
  configurable: true, enumerable: true,
  get() { const value = read(); this[name] = value; return value; },
  set(value) { Object.defineProperty(this, name, {value, writable: true, configurable: true, enumerable: true}); },
});
const paths = Object.entries(inputs);
lazily(globalThis, 'context', () => {
  if (paths.length === 0) return '';
  if (paths.length === 1) return text(paths[0][1]);
  const context = {};
  for (const [name, path] of paths) lazily(context, name, () => text(path));
  return context;
});
let state = seed >>> 0;
Math.random = () => {
  // mulberry32 (public domain, Tommy Ettinger).
  state = (state + 0x6D2B79F5) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
};
process.exit = (code) => { throw new Exit(String(code ?? process.exitCode ?? 0)); };

const compiled = (code, filename) => {
  try {
    return new vm.Script(code, {filename});
  } catch (error) {
    if (!(error instanceof SyntaxError) || !/\bawait\b/.test(code)) throw error;
    return new vm.Script(`(async () => {${code}\n})()`, {filename});
  }
};
const told = (error) => cut(error instanceof Error || error?.stack ? String(error.stack)
  .replace(/^\[eval\][^]*?\n\n/, '').split('\n').filter((line) => !/\[eval\]|node:(vm|internal)/.test(line)).join('\n') : `thrown: ${util.inspect(error)}`, CHARS_MAX);

let stop = () => {}, interrupt = () => {};
process.on('SIGINT', () => interrupt());
process.on('uncaughtException', (error) => stop(error));
const run = async ({cell, path}) => {
  const done = {status: 'ok', exit_code: 0};
  const stopped = new Promise((_, reject) => { stop = reject; });
  stopped.catch(() => {});
  interrupt = () => stop(new Error('interrupted'));
  try {
    const script = compiled(text(path), `<cell ${cell}>`);
    let value = script.runInThisContext({breakOnSigint: true});
    if (typeof value?.then === 'function') value = await Promise.race([value, stopped]);
    if (value !== undefined) done.value = cut(util.inspect(value, {maxStringLength: CHARS_MAX}), CHARS_MAX);
  } catch (error) {
    if (error instanceof Exit) {
      done.exit_code = Number(error.message) & 255;
      if (done.exit_code) done.status = 'error';
      done.error = `the cell ended with process.exit(${error.message}); the session goes on`;
    } else if (error?.code === 'ERR_SCRIPT_EXECUTION_INTERRUPTED' || error?.message === 'interrupted') {
      Object.assign(done, {status: 'interrupted', exit_code: 130, error: 'interrupted'});
    } else {
      Object.assign(done, {status: 'error', exit_code: 1, error: told(error)});
    }
  }
  interrupt = () => {};
  stop = (error) => fs.writeSync(2, `${told(error)}\n`);
  restore();
  const answer = globalThis.answer;
  const content = answer !== null && typeof answer === 'object' ? answer.content : answer;
  done.answer_content = cut(asText(content), ANSWER_CHARS_MAX);
  done.answer_is_ready = Boolean(answer?.ready);
  const digest = crypto.createHash('sha256');
  for (const name of [...names(), 'answer']) {
    digest.update(`${name}\0${util.inspect(globalThis[name], {depth: 4, maxArrayLength: 1000, maxStringLength: 32768})}\0`);
  }
  done.digest = digest.digest('hex');
  return done;
};
(async () => {
  for (;;) {
    const next = order();
    if (next.cell !== undefined) report(await run(next));
  }
})();
})();
"""


class Node(Led):
    def argv(self):
        options = ["--max-old-space-size=512", "-e", LOOP]
        return ["node", *options, json.dumps(self._seed), json.dumps(self._inputs)]

    def open(self, message):
        self._seed, self._inputs = message["seed"], message["inputs"]
        self.start()

    def order_of(self, path, number):
        return json.dumps({"cell": number, "path": path})

    def outcome(self, report):
        return report

    def lost(self, code):
        # Its variables went with it, so the session must not seem to go on.
        os._exit(code & 0xFF)


lead(Node, ["node", "-p", "process.versions.node"])
