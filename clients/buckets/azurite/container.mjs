// Makes a container: ENDPOINT ACCOUNT KEY CONTAINER. Whoever makes one signs, and the store makes none.
import { createHmac } from "node:crypto";

const [endpoint, account, key, container] = process.argv.slice(2);
const date = new Date().toUTCString();
const version = "2021-08-06";
const resource = `/${account}/${account}/${container}\nrestype:container`;
const signed = ["PUT", ...Array(11).fill(""), `x-ms-date:${date}`, `x-ms-version:${version}`, resource].join("\n");
const signature = createHmac("sha256", Buffer.from(key, "base64")).update(signed, "utf8").digest("base64");
const answer = await fetch(`${endpoint}/${container}?restype=container`, {
  method: "PUT",
  headers: { "x-ms-date": date, "x-ms-version": version, authorization: `SharedKey ${account}:${signature}` },
});
if (!answer.ok) {
  console.error(answer.status, await answer.text());
  process.exit(1);
}
