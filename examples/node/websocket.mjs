// Asks Danlu over one WebSocket, several questions at a time; each answer carries the id of its question.
// DANLU_URL (default http://127.0.0.1:8000) and DANLU_API_KEY, if the server needs a key, come from the environment.
import WebSocket from "ws";

const url = (process.env.DANLU_URL ?? "http://127.0.0.1:8000").replace(/^http/, "ws") + "/ws/answers";
const key = process.env.DANLU_API_KEY;
const socket = new WebSocket(url, { headers: key ? { Authorization: `Bearer ${key}` } : {} });
const waiting = new Map();

/** Ask, hand each piece of the answer to `onText`, and resolve to the whole answer. */
function ask(question, onText = () => {}) {
  const id = crypto.randomUUID();
  return new Promise((resolve, reject) => {
    waiting.set(id, { onText, resolve, reject });
    socket.send(JSON.stringify({ type: "ask", id, prompt: question, max_tokens: Number(process.env.MAX_TOKENS ?? 200) }));
  });
}

socket.on("message", (data) => {
  const event = JSON.parse(data);
  const asked = waiting.get(event.id);
  if (!asked) return;
  if (event.type === "text") asked.onText(event.content);
  if (event.type === "done") asked.resolve(event.content);
  if (event.type === "error") asked.reject(new Error(event.error.message));
  if (event.type === "stopped") asked.reject(new Error("stopped"));
  if (["done", "error", "stopped"].includes(event.type)) waiting.delete(event.id);
});

// A connection that ends takes its answers with it: ask again on a new one.
socket.on("close", () => waiting.forEach(({ reject }) => reject(new Error("the connection has ended"))));
socket.on("error", (error) => console.error(error.message));

await new Promise((resolve, reject) => socket.once("open", resolve).once("error", reject));
const questions = process.argv.length > 2 ? process.argv.slice(2) : ["Who are you?", "What do you recommend?"];
const answers = await Promise.all(questions.map((question) => ask(question)));
questions.forEach((question, i) => console.log(`${question}\n  ${answers[i]}`));
socket.close();
