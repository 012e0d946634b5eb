// A client as there are some in the field: GET for what only reads, POST with JSON for the rest, one method for each name.
"use strict";

const reads = { get: "get", help: "help", version: "ver" };
const acts = { set: "set", save: "save", reboot: "reboot", load: "load" };

function device(host) {
  const api = {};
  const parsed = async (response) => {
    if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
    return JSON.parse(await response.text());
  };
  for (const [long, short] of Object.entries(reads)) {
    api[long] = api[short] = async (words) =>
      parsed(
        await fetch(`${host}/command/${long}${words ? " " + words : ""}`, {
          headers: { "Content-Type": "application/json", Accept: "application/json" },
        }),
      );
  }
  for (const [long, short] of Object.entries(acts)) {
    api[long] = api[short] = async (words) =>
      parsed(
        await fetch(`${host}/command`, {
          method: "POST",
          headers: { "Content-Type": "application/json", Accept: "application/json" },
          body: JSON.stringify({ flags: 0, command: `${short} ${words || ""}` }),
        }),
      );
  }
  return api;
}

async function main() {
  const one = device(process.argv[2]);
  const name = `a b"c\\ü`;
  const quoted = '"' + name.replaceAll("\\", "\\\\").replaceAll('"', '\\"') + '"';
  const said = [
    await one.ver(),
    await one.set(`system.name ${quoted}`),
    await one.get("sy n"),
    await one.help("commands"),
    await one.save(),
    await one.get("nothing.at.all"),
  ];
  console.log(JSON.stringify(said));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
