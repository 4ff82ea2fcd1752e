// openai-node with base URL and key swapped, and nothing else. TOLLGATE_NODE_MODULES names the folder
// the SDK is installed in; the rest of the environment is explained in stage.py.
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const require = createRequire(`${process.env.TOLLGATE_NODE_MODULES}/x.js`);
const OpenAI = require("openai");

const { TOLLGATE_URL, TOLLGATE_KEY, TOLLGATE_USED_UP_KEY, TOLLGATE_HASTY_KEY } = process.env;
const model = process.env.TOLLGATE_MODEL ?? "demo-chat";
const messages = [{ role: "user", content: "Say hello to the gate." }];
const weather = [{ role: "user", content: "What is the weather in Paris?" }];
const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };
const tools = [{ type: "function", function: { name: "get_weather", parameters: city } }];

function client(apiKey, attempts = []) {
  const counting = (url, init) => {
    attempts.push(performance.now());
    return fetch(url, init);
  };
  return new OpenAI({ baseURL: `${TOLLGATE_URL}/v1`, apiKey, fetch: counting });
}

async function raised(kind, call) {
  try {
    await call();
  } catch (error) {
    assert.equal(error.constructor, kind, `${error.constructor.name}: ${error.message}`);
    return error;
  }
  assert.fail(`${kind.name} was not raised`);
}

const gate = client(TOLLGATE_KEY);

const whole = await gate.chat.completions.create({ model, messages });
assert.ok(whole.choices[0].message.content);
let said = "";
for await (const chunk of await gate.chat.completions.create({ model, messages, stream: true })) {
  said += chunk.choices[0]?.delta?.content ?? "";
}
assert.equal(said, whole.choices[0].message.content);

const called = await gate.chat.completions.create({ model, messages: weather, tools });
assert.equal(called.choices[0].message.tool_calls[0].function.name, "get_weather");
const two = await gate.chat.completions.create({ model, messages, n: 2 });
assert.equal(two.choices.length, 2);
const response = await gate.responses.create({ model, input: "Say hello to the gate." });
assert.ok(response.output_text);
const events = [];
for await (const event of await gate.responses.create({ model, input: "Hello.", stream: true })) {
  events.push(event.type);
}
assert.equal(events.at(-1), "response.completed");
const vectors = await gate.embeddings.create({ model, input: ["one", "two"] });
assert.equal(vectors.data.length, 2);
assert.ok((await gate.models.list()).data.length > 0);

const unknown = await raised(OpenAI.AuthenticationError, () => client(`pe-${"x".repeat(32)}`).models.list());
assert.equal(unknown.code, "invalid_api_key");

const attempts = [];
const poor = client(TOLLGATE_USED_UP_KEY, attempts);
const usedUp = await raised(OpenAI.RateLimitError, () => poor.chat.completions.create({ model, messages }));
assert.equal(usedUp.code, "insufficient_quota");
assert.equal(attempts.length, 1, `${attempts.length} attempts`);

const long = [{ role: "user", content: "x".repeat(9 << 20) }];
const early = await raised(OpenAI.RateLimitError, () => poor.chat.completions.create({ model, messages: long }));
assert.equal(early.code, "insufficient_quota");

if (TOLLGATE_HASTY_KEY) {
  const hurried = [];
  const hasty = client(TOLLGATE_HASTY_KEY, hurried);
  let calls = 0;
  while (calls < 3 && hurried.length === calls) {
    assert.ok((await hasty.chat.completions.create({ model, messages })).choices);
    calls += 1;
  }
  assert.ok(hurried.length > calls, "the rate limit was never met");
  assert.ok(hurried.at(-1) - hurried.at(-2) >= 300, "tried again too soon");
}

console.log("openai-node ok");
