# Runs cells of JavaScript on node. `channel.py`, `limiting.py`, `commands.py` and `leading.py` stand in
# front, and behind what says which language it is.
#
# One node lives on; cells share its global scope. What a cell declares at its top level becomes a global
# variable, so that the next may declare it again, and `import` becomes `require`: done on the syntax
# tree, by the parser that node's own REPL brings. Queries block, as in Python; `await` works too.

LOOP = r"""
'use strict';
(() => {
const fs = require('fs'), vm = require('vm'), util = require('util'), crypto = require('crypto');
const [typescript, orders, reports] = process.argv.slice(1).map((word) => JSON.parse(word));
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

const strip = (() => {
  if (typescript === null) return (code) => code;
  const {stripTypeScriptTypes} = require('module');
  if (stripTypeScriptTypes) return (code) => stripTypeScriptTypes(code, {mode: 'transform'});
  const ts = require(typescript);
  const compilerOptions = {target: 'ES2022', module: 'ESNext', isolatedModules: true, importsNotUsedAsValues: 'remove'};
  return (code) => {
    const {outputText, diagnostics} = ts.transpileModule(code, {compilerOptions, reportDiagnostics: true});
    for (const {messageText} of diagnostics)
      throw new SyntaxError(ts.flattenDiagnosticMessageText(messageText, '\n'));
    return outputText.replace(/^export \{\};\s*$/m, '');
  };
})();
report({version: typescript === null ? process.versions.node
  : require('module').stripTypeScriptTypes ? `node ${process.versions.node}` : require(typescript).version});
const {seed, inputs} = order();

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
const many = (kind) => (prompts, model = null) =>
  ask([...prompts].map((prompt) => ({kind, prompt: String(prompt), model})));
const unfold = (handle) => {
  // In pieces; a short one is the last. Places are counted in code points.
  for (let text = '', size = 0;;) {
    const piece = one('unfold')(size ? `${handle}:${size}` : handle);
    const count = [...piece].length;
    text += piece;
    size += count;
    if (count < 16 * 1024) return text;
  }
};
const find_folds = (question, count = 3) => JSON.parse(one('find')(String(question))).slice(0, count);
const history = () => JSON.parse(one('history')(''));
const described = (value) => {
  const kind = value === null ? 'null' : Array.isArray(value) ? 'Array' : typeof value;
  const size = value?.length ?? value?.size;
  return typeof size === 'number' && typeof value !== 'function' ? `${kind}, ${size} long` : kind;
};
const asText = (value) => typeof value === 'string' ? value
  : value === undefined || value === null ? '' : typeof value === 'object' ? JSON.stringify(value) : String(value);

const own = new Set(Object.getOwnPropertyNames(globalThis));
const reserved = {
  require, LLMError,
  llm_query: one('llm'), rlm_query: one('rlm'), unfold, find_folds, budget: () => JSON.parse(one('budget')('')),
  llm_query_batched: many('llm'), rlm_query_batched: many('rlm'),
  FINAL: (value) => { globalThis.answer = {content: asText(value), ready: true}; },
  FINAL_VAR: (name) => {
    if (typeof name !== 'string') return reserved.FINAL(name);
    if (!(name in globalThis))
      throw new ReferenceError(`there is no variable ${name}; there are: ${names().join(', ') || 'none'}`);
    return reserved.FINAL(globalThis[name]);
  },
  SHOW_VARS: () => {
    const lines = names().map((name) => `${name}: ${described(globalThis[name])}`);
    if (paths.length) {
      const size = paths.reduce((sum, [, path]) => sum + fs.statSync(path).size, 0);
      lines.unshift(`context: ${paths.length} input${paths.length > 1 ? 's' : ''}, ${size} bytes`);
    }
    return lines.join('\n') || 'no variables yet';
  },
};
const restore = () => {
  for (const name of Object.keys(reserved)) globalThis[name] = reserved[name];
  Object.defineProperty(globalThis, 'history', {configurable: true, get: history, set() {}});
};
const names = () => Object.getOwnPropertyNames(globalThis)
  .filter((name) => !own.has(name) && !(name in reserved) && !['answer', 'context', 'history'].includes(name)).sort();
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

const internals = (() => {
  try {
    return {parse: require('internal/deps/acorn/acorn/dist/acorn').parse,
      wrapAwait: require('internal/repl/await').processTopLevelAwait};
  } catch {
    // Another version of node keeps them elsewhere: declarations then stay as they are written.
    return {parse: () => ({body: []}),
      wrapAwait: (code) => `(async () => {${code}\n})()`};
  }
})();
const tree = (code) => {
  for (const sourceType of ['script', 'module']) {
    try {
      return internals.parse(code, {ecmaVersion: 'latest', sourceType, allowAwaitOutsideFunction: true,
        allowHashBang: true}).body;
    } catch {}
  }
  return [];
};
const imported = ({source, specifiers}) => {
  const from = `require(${source.raw})`;
  const named = [], lines = [];
  for (const {type, local, imported} of specifiers) {
    if (type === 'ImportNamespaceSpecifier') lines.push(`var ${local.name} = ${from};`);
    else if (type === 'ImportDefaultSpecifier') lines.push(`var ${local.name} = ((m) => m?.__esModule ? m.default : m)(${from});`);
    else named.push(`${imported.name ?? imported.raw}: ${local.name}`);
  }
  if (named.length) lines.push(`var {${named.join(', ')}} = ${from};`);
  return lines.join(' ') || `${from};`;
};
const shared = (code) => {
  const edits = [];
  for (const node of tree(code)) {
    const {type, start, end} = node;
    if (type === 'VariableDeclaration' && node.kind !== 'var')
      edits.push([start, start + node.kind.length, 'var']);
    else if (type === 'ClassDeclaration')
      edits.push([start, start, `var ${node.id.name} = `], [end, end, ';']);
    else if (type === 'ImportDeclaration')
      edits.push([start, end, imported(node) + '\n'.repeat(code.slice(start, end).split('\n').length - 1)]);
    else if (type === 'ExportNamedDeclaration' && node.declaration)
      edits.push([start, node.declaration.start, '']);
  }
  for (const [start, end, text] of edits.reverse()) code = code.slice(0, start) + text + code.slice(end);
  return code;
};
const importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
const compiled = (code, filename) => {
  const options = {filename, ...(importModuleDynamically && {importModuleDynamically})};
  code = shared(strip(code));
  try {
    return [new vm.Script(code, options), false];
  } catch (error) {
    if (!(error instanceof SyntaxError) || !/\bawait\b/.test(code)) throw error;
    const wrapped = internals.wrapAwait(code);
    if (wrapped === null) throw error;
    // What it hoists it declares by `let`, which no later cell could declare again.
    return [new vm.Script(wrapped.replace(/^(let [^;]*; )+/, (hoisted) => hoisted.replace(/\blet\b/g, 'var')), options), true];
  }
};
const told = (error) => cut(error instanceof Error || error?.stack ? String(error.stack)
  .replace(/^\[eval\][^]*?\n\n/, '').split('\n').filter((line) => !/\[eval\]|node:(vm|internal)/.test(line)).join('\n') : `thrown: ${util.inspect(error)}`, CHARS_MAX);

let stop = () => {}, interrupt = () => {};
process.on('SIGINT', () => interrupt());
process.on('uncaughtException', (error) => stop(error));
const run = async ({cell, path, arguments: words, name}) => {
  if (words) process.argv = [process.argv[0], name || `<cell ${cell}>`, ...words];
  const done = {status: 'ok', exit_code: 0};
  const stopped = new Promise((_, reject) => { stop = reject; });
  stopped.catch(() => {});
  interrupt = () => stop(new Error('interrupted'));
  try {
    const [script, isWrapped] = compiled(text(path), `<cell ${cell}>`);
    let value = script.runInThisContext({breakOnSigint: true});
    if (typeof value?.then === 'function') value = await Promise.race([value, stopped]);
    if (isWrapped) value = value?.value;
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


class Node(Interpreter):
    """`TYPESCRIPT`: None, or where the compiler is if node has none of its own."""

    TYPESCRIPT = None

    def argv(self):
        options = ["--no-warnings", "--expose-internals", "--max-old-space-size=512", "-e", LOOP]
        return ["node", *options, json.dumps(self.TYPESCRIPT)]
