// Asks Danlu through the official OpenAI client, streamed.
// DANLU_URL (default http://127.0.0.1:8000) and DANLU_API_KEY, if the server needs a key, come from the environment.
import OpenAI from "openai";

const client = new OpenAI({
  baseURL: `${process.env.DANLU_URL ?? "http://127.0.0.1:8000"}/v1`,
  apiKey: process.env.DANLU_API_KEY ?? "unused",
});

const models = await client.models.list();
const stream = await client.chat.completions.create({
  model: process.env.DANLU_ASSISTANT ?? models.data[0].id,
  messages: [{ role: "user", content: process.argv[2] ?? "Who are you?" }],
  max_tokens: Number(process.env.MAX_TOKENS ?? 200),
  stream: true,
  stream_options: { include_usage: true },
});

let usage;
for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
  usage = chunk.usage ?? usage;
}
process.stdout.write(`\n[${usage.prompt_tokens} tokens read, ${usage.completion_tokens} written]\n`);
