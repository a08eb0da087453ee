// Reads requests as JSON, one a line, and says what the libraries make of each: a CloudEvent by the
// JavaScript SDK, or a verified webhook. An error is a line of its own.
import { createInterface } from "node:readline";
import { HTTP } from "cloudevents";
import { Webhook } from "standardwebhooks";

for await (const line of createInterface({ input: process.stdin })) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    const read = secret
      ? new Webhook(secret).verify(body, headers)
      : HTTP.toEvent({ headers, body }).toJSON();
    console.log(JSON.stringify({ read }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
