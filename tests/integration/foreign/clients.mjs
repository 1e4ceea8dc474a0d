// What clients from npm do, each as its own documentation shows it; run by test_foreign_clients.py.
//
// `node clients.mjs NAME URL` runs one of them against a node and prints what it got as JSON, in the
// words of clients.py.

import Anthropic, { NotFoundError as NothingThere } from "@anthropic-ai/sdk";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { Ollama } from "ollama";
import OpenAI, { NotFoundError } from "openai";

const MODEL = "m";
const WHERE = { type: "object", properties: { where: { type: "string" } } };
const LOOK = { type: "function", function: { name: "look", description: "around", parameters: WHERE } };

const user = (content) => [{ role: "user", content }];

const all = async (stream) => {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return pieces;
};

const refusal = async (asked, kind) => {
  try {
    await asked;
    return null;
  } catch (error) {
    if (kind && !(error instanceof kind)) throw error;
    return error;
  }
};

async function openaiResponses(url) {
  const responses = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 }).responses;
  const said = await responses.create({ model: MODEL, instructions: "be brief", input: "ECHO: hello there" });
  const events = await all(await responses.create({ model: MODEL, input: "TOKENS: 3", stream: true }));
  const tool = { type: "function", strict: false, ...LOOK.function };
  const asked = user('CALL: look {"where": "here"}');
  const stream = responses.stream({ model: MODEL, input: asked, tools: [tool] });
  const heard = (await all(stream)).map((event) => event.type);
  const called = await stream.finalResponse();
  const call = called.output.find((one) => one.type === "function_call");
  const result = { type: "function_call_output", call_id: call.call_id, output: "ECHO: seen" };
  const seen = await responses.create({ model: MODEL, input: [...asked, ...called.output, result] });
  const error = await refusal(
    responses.create({ model: MODEL, input: "x", previous_response_id: "resp_1" }),
    OpenAI.BadRequestError,
  );
  const deltas = events.filter((event) => event.type === "response.output_text.delta");
  return {
    text: said.output_text,
    usage: [said.usage.input_tokens, said.usage.output_tokens],
    streamed: deltas.map((event) => event.delta).join(""),
    whole: events.at(-1).response.output[0].content[0].text,
    first_and_last: [events[0].type, events.at(-1).type],
    call: [call.name, JSON.parse(call.arguments)],
    heard: heard.includes("response.function_call_arguments.delta"),
    answered: seen.output_text,
    error: error.param,
  };
}

async function openai(url) {
  const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none", maxRetries: 0 });
  const chat = client.chat.completions;
  const said = await chat.create({ model: MODEL, messages: user("ECHO: hello there") });
  const chunks = await all(
    await chat.create({
      model: MODEL,
      messages: user("TOKENS: 3"),
      stream: true,
      stream_options: { include_usage: true },
    }),
  );
  const choices = chunks.flatMap((chunk) => chunk.choices);
  // The client asks for base64 unless it is told otherwise, and unpacks it itself.
  const found = await client.embeddings.create({ model: MODEL, input: ["ab", "zz"] });
  const error = await refusal(chat.create({ model: "nope", messages: user("x") }), NotFoundError);
  return {
    text: said.choices[0].message.content,
    usage: [said.usage.prompt_tokens, said.usage.completion_tokens],
    streamed: choices.map((choice) => choice.delta.content ?? "").join(""),
    finish: choices.at(-1).finish_reason,
    stream_usage: chunks.at(-1).usage.completion_tokens,
    models: (await all(await client.models.list())).map((one) => one.id),
    embedding: found.data[0].embedding.slice(0, 3),
    error: error.code,
  };
}

async function openaiTools(url) {
  const chat = new OpenAI({ baseURL: `${url}/v1`, apiKey: "none" }).chat.completions;
  const asked = { model: MODEL, messages: user('CALL: look {"where": "here"}'), tools: [LOOK] };
  const whole = await chat.create(asked);
  const chunks = await all(await chat.create({ ...asked, stream: true }));
  const pieces = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  const [call] = whole.choices[0].message.tool_calls;
  const seen = { role: "tool", tool_call_id: call.id, content: "ECHO: seen" };
  const answered = await chat.create({
    ...asked,
    messages: [...asked.messages, whole.choices[0].message, seen],
  });
  const numbers = [...Array(16).keys()];
  const many = await Promise.all(
    numbers.map((number) => chat.create({ model: MODEL, messages: user(`ECHO: ${number}`) })),
  );
  return {
    call: [call.function.name, JSON.parse(call.function.arguments)],
    finish: whole.choices[0].finish_reason,
    streamed: JSON.parse(pieces.map((piece) => piece.function.arguments).join("")),
    answered: answered.choices[0].message.content,
    many: many.map((one) => one.choices[0].message.content),
  };
}

async function ollama(url) {
  const client = new Ollama({ host: url });
  const ask = (prompt, more) => client.chat({ model: MODEL, messages: user(prompt), ...more });
  const said = await ask("ECHO: hello there");
  const pieces = await all(await ask("TOKENS: 3", { stream: true }));
  const call = await ask('CALL: look {"where": "here"}', { tools: [LOOK] });
  const missing = await refusal(client.chat({ model: "nope", messages: user("x") }));
  return {
    text: said.message.content,
    streamed: pieces.map((piece) => piece.message.content).join(""),
    generated: (await client.generate({ model: MODEL, prompt: "ECHO: once" })).response,
    models: (await client.list()).models.map((one) => one.model),
    loaded: (await client.ps()).models.map((one) => one.model),
    call: call.message.tool_calls.map((one) => [one.function.name, one.function.arguments]),
    embedding: (await client.embed({ model: MODEL, input: ["ab"] })).embeddings[0].slice(0, 3),
    shown: (await client.show({ model: MODEL })).details.family,
    status: missing.status_code,
  };
}

async function anthropic(url) {
  const client = new Anthropic({ baseURL: url, apiKey: "none", maxRetries: 0 });
  const ask = (prompt, more) =>
    client.messages.create({ model: MODEL, max_tokens: 50, messages: user(prompt), ...more });
  const said = await ask("ECHO: hello there", { system: "be brief" });
  const stream = client.messages.stream({
    model: MODEL,
    max_tokens: 50,
    messages: user("TOKENS: 3"),
  });
  let streamed = "";
  stream.on("text", (text) => {
    streamed += text;
  });
  const whole = await stream.finalMessage();
  const tool = { name: "look", description: "around", input_schema: WHERE };
  const call = await ask('CALL: look {"where": "here"}', { tools: [tool] });
  const missing = await refusal(ask("x", { model: "nope" }), NothingThere);
  const counted = await client.messages.countTokens({ model: MODEL, messages: user("hello there") });
  return {
    text: said.content[0].text,
    stop: said.stop_reason,
    streamed,
    usage: whole.usage.output_tokens,
    call: call.content
      .filter((block) => block.type === "tool_use")
      .map((block) => [block.name, block.input]),
    call_stop: call.stop_reason,
    models: (await all(await client.models.list())).map((one) => one.id),
    counted: counted.input_tokens,
    error: missing.error.error.type,
  };
}

async function mcp(url) {
  const client = new Client({ name: "test", version: "1" });
  await client.connect(new StreamableHTTPClientTransport(new URL(`${url}/mcp`)));
  const heard = [];
  const hear = { onprogress: (told) => heard.push(told.message) };
  const use = (name, given, options) =>
    client.callTool({ name, arguments: given }, undefined, options);
  const tools = await client.listTools();
  const ran = await use("run", { language: "python", code: "print(6 * 7)" }, hear);
  const failed = await use("run", { language: "python", code: "1 / 0" });
  const asked = await use("ask", { prompt: "ECHO: hello" });
  const submitted = {
    prompt: "```python\nprint(len(open('a.txt').read()))\n```",
    mode: "blocks",
    context: [{ name: "a.txt", text: "x".repeat(5000) }],
  };
  const done = (await use("submit", submitted, hear)).structuredContent;
  await client.close();
  return {
    tools: tools.tools.map((tool) => tool.name),
    ran: ran.content[0].text,
    failed: failed.isError,
    asked: asked.content[0].text,
    done: [done.state, done.stats.cells],
    heard: heard.length > 0,
  };
}

const CLIENTS = {
  openai_sync: openai,
  openai_async: openaiTools,
  openai_responses: openaiResponses,
  ollama,
  anthropic,
  mcp,
};
const [name, url] = process.argv.slice(2);
console.log(JSON.stringify(await CLIENTS[name](url)));
