// The dashboard: rows of the mesh as the node tells them, nothing fetched from elsewhere, and
// nothing that a peer says ever taken for markup.
"use strict";

const none = () => ({ status: new Map(), peers: new Map(), tasks: new Map(), topology: new Map() });
const SILENT_MS = 15000; // the node says something every five seconds
const OLD_S = 90; // a peer says how it is every half minute, in a large mesh more seldom

let rows = none();
let coming = null; // what a stream that has just begun has told, until it is whole
let stream = null;
let heardAt = Date.now();
let lost = null; // since when nothing is heard, and why
const at = (id) => document.getElementById(id);
let shown = null; // the task that is looked at
let follower = null; // the events of it
let scheduled = false;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const many = (count, what) => `${count ?? 0} ${what}${count === 1 ? "" : "s"}`;

function replace(element, ...children) { element.replaceChildren(...children); }

function notice(text) {
  at("notice").hidden = !text;
  at("notice").textContent = text;
}

async function ask(method, path, body) {
  const options = { method, headers: { accept: "application/json" } };
  if (body !== undefined) {
    options.headers["content-type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  const said = await response.json();
  if (!response.ok) throw new Error(said.error?.message ?? response.statusText);
  return said;
}

const attempt = (work) => async (event) => {
  event?.preventDefault?.();
  try { await work(event); notice(""); } catch (error) { notice(error.message); }
};

// --- what the node tells ------------------------------------------------------------------------

function watch() {
  stream?.close();
  const source = stream = new EventSource("/events");
  const hear = (name, heed) => source.addEventListener(name, (event) => {
    if (stream !== source) return;
    heardAt = Date.now();
    heed(event);
  });
  for (const what of Object.keys(rows)) {
    hear(what, (event) => {
      const { key, value } = JSON.parse(event.data);
      const known = (coming ?? rows)[what];
      if (value === null) known.delete(key); else known.set(key, { ...value, heardAt });
      if (coming === null) schedule();
    });
  }
  hear("tick", () => {});
  hear("ready", () => {
    if (coming !== null) rows = coming;
    coming = null;
    lost = null;
    schedule();
    // Whoever looked at a task goes on looking.
    if (shown && follower === null && !(rows.tasks.get(shown)?.state in ends)) follow(shown);
  });
  source.onopen = () => { if (stream === source) coming = none(); };
  source.onerror = (event) => {
    if (stream !== source) return;
    lose(event.data ? JSON.parse(event.data).error.message : "the node does not answer");
  };
}

function lose(why) {
  if (lost === null) lost = { at: heardAt, why };
  schedule();
}

// What the page shows must not look newer than it is, and a stream that is dead need not say so.
setInterval(() => {
  if (Date.now() - heardAt > SILENT_MS) {
    lose("nothing is heard from the node");
    heardAt = Date.now() - SILENT_MS / 2; // the next try has as long again
    watch();
  } else if (stream.readyState === EventSource.CLOSED) watch();
  if (lost !== null) schedule();
}, 1000);

const clock = (ms) => new Date(ms).toTimeString().slice(0, 8);

function drawLink() {
  document.body.classList.toggle("lost", lost !== null);
  const text = lost === null ? "live"
    : `not live: ${lost.why}; what is shown is as of ${clock(lost.at)}, trying again`;
  if (at("link").textContent !== text) at("link").textContent = text;
}

// How many seconds old what is known of a peer is by now.
function ageOf(peer) {
  return peer.age_s === null ? null : peer.age_s + (Date.now() - peer.heardAt) / 1000;
}

function ago(seconds) {
  if (seconds === null) return "nothing is known of how it is";
  const whole = Math.round(seconds);
  return `as of ${whole < 120 ? `${whole} s` : `${Math.round(whole / 60)} min`} ago`;
}

function schedule() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => { scheduled = false; draw(); });
}

function draw() {
  drawLink();
  drawNode();
  drawPeers();
  drawTasks();
  drawTopology();
}

function drawNode() {
  const status = rows.status.get("");
  if (!status) return;
  at("node-name").textContent = status.name;
  document.title = `${status.name} · kowalski-node`;
  const parts = [`mesh ${status.mesh}`, `sandbox ${status.sandbox}`, `${many(status.connections, "peer")} connected`];
  at("node-line").textContent = parts.join(" · ");
  at("version").textContent = `version ${status.version}`;
  const drain = at("drain");
  drain.hidden = status.draining === undefined;
  drain.textContent = status.draining ? "Take work again" : "Drain this node";
  if (status.warnings?.length) notice(status.warnings.join("; "));
}

function drawPeers() {
  const peers = [...rows.peers.values()].sort((a, b) =>
    Number(b.is_self) - Number(a.is_self) || Number(b.routable) - Number(a.routable) || a.name.localeCompare(b.name));
  at("peers-count").textContent = `(${peers.length})`;
  replace(at("peers"), ...peers.map(peerCard));
}

function peerCard(peer) {
  const here = lost === null ? ["here", "good"] : ["was here", "warn"];
  const state = peer.routable ? here : [peer.state, peer.state === "member" ? "warn" : "bad"];
  const can = [...Object.keys(peer.languages ?? {}), ...(peer.models ?? []).map((name) => `model ${name}`)];
  const round = peer.is_self ? "this node" : peer.rtt_ms === null ? "not measured" : `${peer.rtt_ms.toFixed(1)} ms`;
  const age = ageOf(peer);
  const isOld = !peer.is_self && (!peer.routable || age === null || age > OLD_S);
  const why = peer.why_not ? make("p", { class: "quiet warn" }, peer.why_not) : null;
  return make("li", { class: isOld ? "old" : "" },
    make("div", { class: "top" }, make("b", {}, peer.name || "…" + peer.peer.slice(-8)),
      make("span", { class: `pill ${state[1]}` }, state[0])),
    meter("load", peer.load, peer.load === null ? "–" : peer.load.toFixed(2)),
    meter("CPU", (peer.cpu_percent ?? 0) / 100, peer.cpu_percent === null ? "–" : `${Math.round(peer.cpu_percent)} %`),
    meter("memory", peer.memory_used_fraction ?? 0,
      peer.memory_used_fraction === null ? "–" : `${Math.round(100 * peer.memory_used_fraction)} %`),
    isOld ? make("p", { class: "quiet age" }, ago(age)) : null,
    make("p", { class: "quiet", title: peer.peer }, `${round} · ${(peer.roles ?? []).join(", ") || "no roles told"}`),
    can.length ? make("p", { class: "quiet" }, can.join(", ")) : null,
    why);
}

function meter(name, value, text) {
  const filled = Math.max(0, Math.min(1, value ?? 0));
  const bar = make("i", { class: filled > 0.85 ? "full" : "" });
  bar.style.width = `${Math.round(100 * filled)}%`;
  const label = make("div", { class: "bar", role: "meter", "aria-label": name, "aria-valuemin": 0, "aria-valuemax": 1,
    "aria-valuenow": filled.toFixed(2) }, bar);
  return make("div", { class: "meter" }, make("span", {}, name), label, make("span", {}, text));
}

const ends = { answered: "good", failed: "bad", cancelled: "warn" };

function drawTasks() {
  const tasks = [...rows.tasks.values()].sort((a, b) => (a.task < b.task ? 1 : -1));
  at("tasks-count").textContent = tasks.length ? `(${tasks.length})` : "";
  at("tasks-none").hidden = tasks.length > 0;
  const held = document.activeElement?.dataset?.task;
  replace(at("tasks"), ...tasks.slice(0, 50).map(taskRow));
  if (held) document.querySelector(`[data-task="${CSS.escape(held)}"]`)?.focus();
  if (shown && follower === null && rows.tasks.has(shown)) refreshTask();
}

function taskRow(task) {
  const row = make("button", { class: "row", type: "button", "data-task": task.task, onclick: () => show(task.task) },
    make("div", { class: "top" }, make("span", {}, task.prompt_head || task.task),
      make("span", { class: `pill ${ends[task.state] ?? ""}` }, task.state)),
    make("span", { class: "quiet" },
      `${task.mode} · ${task.entries === 1 ? "1 entry" : `${task.entries} entries`} · ${task.coordinator_name ? `led by ${task.coordinator_name}, term ${task.term}` : "not led yet"}`));
  row.setAttribute("aria-current", String(task.task === shown));
  return make("li", {}, row);
}

function drawTopology() {
  const told = rows.topology.get("");
  const matrix = told?.matrix ?? told?.rows;
  at("topology").hidden = !Array.isArray(matrix) || matrix.length === 0;
  if (at("topology").hidden) return;
  const names = matrix.map((row) => row.name ?? row.peer?.slice(-6));
  const since = (Date.now() - told.heardAt) / 1000;
  const measured = (row) => row.age_s === null || row.age_s + since <= OLD_S ? null
    : make("span", { class: "quiet age" }, ` ${ago(row.age_s + since)}`);
  const head = make("tr", {}, make("th", {}, "from \\ to"), ...names.map((name) => make("th", { scope: "col" }, name)));
  const body = matrix.map((row, from) => make("tr", {}, make("th", { scope: "row" }, names[from], measured(row)),
    ...(row.rtt_ms ?? []).map((rtt, to) => make("td", {}, from === to ? "·" : rtt === null ? "–" : rtt.toFixed(1)))));
  replace(at("rtt"), make("thead", {}, head), make("tbody", {}, ...body));
}

// --- one task -----------------------------------------------------------------------------------

function show(task) {
  shown = task;
  at("task").hidden = false;
  at("task-title").textContent = `Task ${task}`;
  replace(at("task-ran"));
  replace(at("task-why"));
  drawTasks();
  follow(task);
  refreshTask();
  at("task-title").focus();
}

function follow(task) {
  follower?.close();
  replace(at("task-events")); // it is told from its beginning
  at("task-answer").textContent = "";
  const source = follower = new EventSource(`/tasks/${encodeURIComponent(task)}/events`);
  const began = performance.now();
  const stop = () => { source.close(); if (follower === source) follower = null; refreshTask(); };
  for (const kind of ["coordinator", "note", "cell", "call", "turn", "fold", "output", "delta", "submitted"]) {
    source.addEventListener(kind, (event) => { if (follower === source) told(JSON.parse(event.data), began); });
  }
  source.addEventListener("done", stop);
  source.addEventListener("error", stop); // also where this node cannot follow it
}

function told(event, began) {
  if (event.kind === "delta") { at("task-answer").textContent += event.text; return; }
  const words = {
    coordinator: () => `led by ${event.name}, term ${event.term}${event.why ? ` (${event.why})` : ""}`,
    note: () => event.text,
    cell: () => `cell ${event.cell} ${event.language} on ${event.name}: ${event.status}${event.why ? `: ${event.why}` : ""}`,
    call: () => `model ${event.model} on ${event.name}${event.count ? `, ${event.count} times` : ""}`,
    turn: () => `turn ${event.n}`,
    fold: () => `folded ${event.source_tokens} tokens into ${event.tokens} on ${event.name}`,
    output: () => event.text,
    submitted: () => `submitted${event.mode ? ` (${event.mode})` : ""}`,
  }[event.kind];
  if (!words) return;
  const line = make("li", {}, make("span", { class: "time" }, `${((performance.now() - began) / 1000).toFixed(1)} s`), words());
  const list = at("task-events");
  const atEnd = list.scrollTop + list.clientHeight >= list.scrollHeight - 20;
  list.append(line);
  while (list.children.length > 500) list.firstChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

async function refreshTask() {
  const task = shown;
  if (!task) return;
  try {
    const whole = await ask("GET", `/tasks/${encodeURIComponent(task)}`);
    if (task !== shown) return;
    const { stats = {} } = whole;
    const tokens = (stats.prompt_tokens ?? 0) + (stats.completion_tokens ?? 0);
    const spent = [many(stats.cells, "cell"), many(stats.calls, "call"), many(tokens, "token")].join(", ");
    at("task-line").textContent = `${whole.state} · ${whole.mode} · ${spent}${whole.reason ? ` · ${whole.reason}` : ""}`;
    if (whole.answer) at("task-answer").textContent = whole.answer;
    at("task-cancel").hidden = whole.state !== "waiting" && whole.state !== "running";
    const ran = whole.ran ?? [];
    replace(at("task-ran"), ...ran.map((one) => make("li", {}, make("b", {}, one.what), ` on ${one.name}`,
      one.why ? make("div", { class: "quiet" }, one.why) : null)));
    await refreshReasons(task);
  } catch (error) { at("task-line").textContent = error.message; }
}

async function refreshReasons(task) {
  const { appointments = [], decisions = [] } = await ask("GET", `/tasks/${encodeURIComponent(task)}/explain`);
  if (task !== shown) return;
  const appointed = appointments.map((one) => reasons(`term ${one.term}: ${one.name} leads`, one.why,
    one.candidates.map((peer) => `${peer.name}: weight ${peer.weight}, score ${peer.score.toPrecision(3)}${peer.is_excluded ? ", has failed at it before" : ""}`)));
  const chosen = decisions.map((one) => reasons(`${one.wanted} → ${one.name ?? "nobody"}`, one.why, one.candidates.map(candidate)));
  replace(at("task-why"), ...appointed, ...chosen);
}

function reasons(head, why, lines) {
  return make("li", {}, make("details", {}, make("summary", {}, head),
    make("p", { class: "quiet" }, why), ...lines.map((line) => make("div", { class: "quiet" }, line))));
}

function candidate(peer) {
  if (peer.score === undefined) return `${peer.name}: ${peer.why}`;
  const offer = peer.offer ? `, offers to be done after ${peer.offer.expected_s.toPrecision(3)} s` : "";
  return `${peer.name}: ${peer.why}${offer}${peer.refused ? `, refuses: ${peer.refused}` : ""}`;
}

// --- what the owner does ------------------------------------------------------------------------

at("ask").addEventListener("submit", attempt(async () => {
  const task = await ask("POST", "/tasks", { prompt: at("prompt").value, mode: at("mode").value });
  at("prompt").value = "";
  show(task.task);
}));
at("prompt").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) at("ask").requestSubmit();
});
at("task-cancel").addEventListener("click", attempt(async () => { await ask("DELETE", `/tasks/${encodeURIComponent(shown)}`); }));
at("drain").addEventListener("click", attempt(async () => {
  await ask("POST", rows.status.get("")?.draining ? "/undrain" : "/drain", {});
}));
at("invite-open").addEventListener("click", attempt(async () => {
  const invite = await ask("POST", "/pages/invite", {});
  at("invite-line").textContent = `kowalski-node start --join ${invite.line}`;
  replace(at("invite-qr"), make("img", { src: invite.qr, alt: "The line as a QR code" }));
  at("invite").showModal();
}));
at("invite-close").addEventListener("click", () => at("invite").close());
at("invite-copy").addEventListener("click", attempt(async () => {
  await navigator.clipboard.writeText(at("invite-line").textContent);
}));

watch();
