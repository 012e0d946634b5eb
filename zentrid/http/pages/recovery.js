"use strict";

const part = (id) => document.getElementById(id);

/** Carry out a command line; the answer's text. Throws with a sentence when it failed. */
async function command(line) {
  const response = await fetch("/command", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ command: line, flags: 0 }),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  if (answer.code !== 0) throw new Error([...(answer.log || []), answer.response.trim()].join("\n"));
  return [...(answer.log || []), answer.response].join("\n").trim();
}

/** A word as the command line reads it back. */
const quoted = (word) => '"' + word.replaceAll("\\", "\\\\").replaceAll('"', '\\"') + '"';

function on(id, work) {
  part(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const button = event.target.querySelector("button");
    button.disabled = true;
    part("answer").textContent = "...";
    try {
      part("answer").textContent = await work(new FormData(event.target));
    } catch (error) {
      part("answer").textContent = error.message;
    } finally {
      button.disabled = false;
    }
  });
}

on("send", (form) => command(form.get("line")));

on("set-account", async (form) => {
  // Both hold a moment after they are set: time enough to save them before the browser has to ask for them.
  await command("set http.server.username " + quoted(form.get("username")));
  await command("set http.server.password " + quoted(form.get("password")));
  await command("save");
  part("account").hidden = true;
  return "Set and saved. The browser asks for it from now on.";
});

on("set-network", async (form) => {
  await command("set wlan.ssid " + quoted(form.get("ssid")));
  await command("set wlan.password " + quoted(form.get("password")));
  await command("set network.default_interface wlan");
  await command("save");
  return "Saved. It takes effect with network_restart, or at the next start.";
});

async function show() {
  const facts = await (await fetch("/.recovery.json")).json();
  part("title").textContent = facts.problems.length ? "Recovery" : facts.setup ? "Set-up" : "The device is running";
  part("problems").replaceChildren(
    ...facts.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  part("trouble").hidden = !facts.problems.length || facts.setup;
  part("safe").hidden = !facts.safe_mode;
  part("account").hidden = facts.account || !facts.api;
  part("network").hidden = !facts.setup || !facts.api;
  part("console").hidden = !facts.api;
  if (facts.api) part("version").textContent = await command("version");
}

show().catch((error) => { part("answer").textContent = error.message; });
