// The official SDK for Node: lists, reads and deletes threads, and prints what it got as JSON.
// Arguments: the base URL, an API key, and the id of the thread to read and delete.
import { createRequire } from "node:module";
import { join } from "node:path";

const require = createRequire(join(process.env.OPENAI_NODE, "index.js"));
const { OpenAI } = require("openai");

const [baseURL, apiKey, id] = process.argv.slice(2);
const { threads } = new OpenAI({ baseURL, apiKey, maxRetries: 0 }).beta.chatkit;

async function all(pages) {
  const found = [];
  for await (const each of pages) found.push(each);
  return found;
}

const got = {
  listed: await all(threads.list({ user: "ada", limit: 2, order: "asc" })),
  retrieved: await threads.retrieve(id),
  items: await all(threads.listItems(id, { limit: 3, order: "asc" })),
  deleted: await threads.delete(id),
};
got.missing = await threads.retrieve(id).then(
  () => null,
  (error) => ({ status: error.status, message: error.message }),
);
got.left = (await all(threads.list())).map((thread) => thread.id);
console.log(JSON.stringify(got));
