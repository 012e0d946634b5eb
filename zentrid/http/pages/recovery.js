"use strict";

const RECOVERY = "/.recovery.html";
const LOOK_MS = 700;
/** So often it is looked whether what was done has taken effect: the door hears of it a moment later. */
const LOOKS = 10;
const COMMAND_MS = 900_000;
/** network_restart has decided by then whether the network came up; no answer means that the address is another one. */
const NETWORK_MS = 45_000;
/** So often, and so many times, it is looked whether the device is back at the address before: it takes a minute at most. */
const BACK_MS = 2000;
const BACK_LOOKS = 60;

const part = (id) => document.getElementById(id);
const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** The device did not answer: it may be at another address by now. */
class GoneError extends Error {}

async function ask(path, options, ms) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: AbortSignal.timeout(ms) });
  } catch {
    throw new GoneError("The device does not answer. Check its power and the network, then load this page again.");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

/** Carry out a command line; its answer, and what it said before. Throws with a sentence when it failed. */
async function carryOut(line, ms = COMMAND_MS) {
  const body = JSON.stringify({ command: line, flags: 0 });
  const answer = await ask("/command", { method: "POST", headers: { "Content-Type": "application/json" }, body }, ms);
  const log = answer.log || [];
  const response = answer.response.trim();
  // Of a failure the reason comes last; what is before it may be progress.
  if (answer.code !== 0) throw new Error(log.at(-1) || response);
  return { log, response };
}

/** The same; all of it in one text. */
async function command(line, ms = COMMAND_MS) {
  const { log, response } = await carryOut(line, ms);
  return [...log, response].join("\n").trim();
}

/** A word as the command line reads it back. */
const quoted = (word) => '"' + word.replaceAll("\\", "\\\\").replaceAll('"', '\\"') + '"';

const set = (name, word) => command(`set ${name} ${quoted(word)}`);

/** Do `work` when a form is sent, once at a time; what it returns, or why it failed, is the form's status. */
function on(id, work) {
  const form = part(id);
  const status = form.querySelector(".status");
  const button = form.querySelector("button");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    button.disabled = true;
    status.className = "status";
    status.textContent = "…";
    try {
      status.textContent = await work(new FormData(form), (text) => { status.textContent = text; });
      status.classList.add("done");
    } catch (error) {
      status.textContent = error.message;
      status.classList.add("failed");
    } finally {
      button.disabled = false;
      // Who has gone on to another field meanwhile types there.
      if (document.activeElement === document.body) button.focus();
    }
  });
}

/** Wait until the device stands as it should, for a while. */
async function until(reached) {
  for (let looks = 0; looks < LOOKS && !reached(await show()); looks += 1) await wait(LOOK_MS);
}

// --- the Web App ------------------------------------------------------------------------------------------------------
/** Show how far a restore is until `ended` says so. */
async function follow(ended, say) {
  while (!ended()) {
    const status = await command("webapp_recover status").catch(() => "");
    const percent = /^restoring: (\d+) %/.exec(status);
    if (percent && !ended()) {
      part("progress").value = Number(percent[1]);
      say(status);
    }
    await wait(LOOK_MS);
  }
}

on("restore", async (form, say) => {
  let ended = false;
  part("progress").value = 0;
  part("progress").hidden = false;
  const following = follow(() => ended, say);
  try {
    const { response } = await carryOut(`webapp_recover ${form.get("source")}`.trim());
    await until((facts) => !facts.problems.length);
    return response;
  } finally {
    ended = true;
    await following;
    part("progress").hidden = true;
    await show();
  }
});

// --- account, command line --------------------------------------------------------------------------------------------
on("set-account", async (form) => {
  // Both hold a moment after they are set: time enough to save them before the browser has to ask for them.
  await set("http.server.username", form.get("username"));
  await set("http.server.password", form.get("password"));
  await command("save");
  return "Set and saved. The browser asks for it from now on.";
});

on("send", (form) => command(form.get("line")));

// --- set-up -----------------------------------------------------------------------------------------------------------
const network = part("set-network");

function showFields() {
  const wireless = network.elements.interface.value === "wlan";
  const fixed = network.elements.dhcp.value === "0";
  part("wireless").hidden = !wireless;
  part("fixed").hidden = !fixed;
  network.elements.ssid.required = wireless;
  network.elements.ip.required = fixed;
  network.elements.netmask.required = fixed;
}

network.addEventListener("change", showFields);

/** The form is shown when it holds what is set: nothing that a person has typed is overwritten. */
let filled = false;

async function fillNetwork() {
  const get = (name) => command(`get ${name}`).catch(() => "");
  const fields = network.elements;
  fields.dhcp.value = (await get("network.dhcp")) === "0" ? "0" : "1";
  fields.interface.value = (await get("network.default_interface")) === "wlan" ? "wlan" : "ethernet";
  fields.ssid.value = await get("wlan.ssid");
  for (const name of ["ip", "netmask", "gateway", "dns"]) {
    // Where nothing fixed is in use, what is in use now is what a fixed address should look like.
    const own = fields.dhcp.value === "0" ? await get(`network.static.${name}`) : "";
    fields[name].value = own || (await get(`network.${name}`));
  }
  showFields();
  filled = true;
}

function lead(host) {
  const address = new URL(RECOVERY, location.href);
  address.hostname = host;
  part("new-address").href = address.href;
  part("new-address").textContent = address.href;
  part("elsewhere").hidden = false;
}

const NETWORK = ["network.default_interface", "network.dhcp", ...["ip", "netmask", "gateway", "dns"].map((name) => `network.static.${name}`)];
let tries = 0;

/** What did not come up must not stay set: saving the account would keep it, and the next start would use it. */
async function takeBack(before) {
  for (const name of NETWORK) await set(name, before[name]).catch(() => "");
}

/** The same when the device answers here again with the address before; one that has moved for good never does. */
async function takeBackLater(before, mine) {
  for (let looks = 0; looks < BACK_LOOKS && mine === tries; looks += 1) {
    await wait(BACK_MS);
    if ((await command("get network.ip", NETWORK_MS).catch(() => "")) !== before["network.ip"] || mine !== tries) continue;
    await takeBack(before);
    return;
  }
}

async function setNetwork(form) {
  if (form.get("interface") === "wlan") {
    await set("wlan.ssid", form.get("ssid"));
    await set("wlan.password", form.get("password"));
  }
  await set("network.default_interface", form.get("interface"));
  await set("network.dhcp", form.get("dhcp"));
  if (form.get("dhcp") === "0") for (const name of ["ip", "netmask", "gateway", "dns"]) await set(`network.static.${name}`, form.get(name));
}

on("set-network", async (form, say) => {
  part("elsewhere").hidden = true;
  const fixed = form.get("dhcp") === "0";
  const mine = tries += 1;
  const before = {};
  for (const name of [...NETWORK, "network.ip"]) before[name] = await command(`get ${name}`);
  try {
    await setNetwork(form);
  } catch (error) {
    await takeBack(before);
    throw error;
  }
  say(fixed
    ? `Trying. If this page falls silent, the device is at ${form.get("ip")}.`
    : "Trying. If this page falls silent, the device has another address: its router, or 'get network.ip' on the serial console, tells it.");
  if (fixed && form.get("ip") !== location.hostname) lead(form.get("ip"));
  let answer;
  try {
    answer = await command("network_restart", NETWORK_MS);
  } catch (error) {
    if (!(error instanceof GoneError)) {
      part("elsewhere").hidden = true;
      await takeBack(before);
      throw new Error(`It did not come up and was taken back; nothing is saved.\n${error.message}`);
    }
    if (!fixed || form.get("ip") !== before["network.ip"]) takeBackLater(before, mine);
    throw new Error(
      `No answer from here any more, as it is when the address changes${fixed ? "" : " (its router tells the new one)"}. `
      + "If the device is not at its new address within a minute, it has taken this back and is here again.");
  }
  const host = /Network up: ([0-9.]+)/.exec(answer);
  if (host && host[1] !== location.hostname) lead(host[1]);
  return `${answer}\nIt works. Keep it, or it is gone with the next start.`;
});

on("keep", async () => {
  const answer = await command("network_up", NETWORK_MS);
  await command("save");
  return `Saved. ${answer}`;
});

on("stop-setup", async () => {
  await command("setup stop");
  await until((facts) => !facts.setup);
  part("title").focus();
  return "Set-up has ended.";
});

// --- what is to be seen -----------------------------------------------------------------------------------------------
async function show() {
  const facts = await ask("/.recovery.json", {}, 30_000);
  const damaged = facts.problems.length > 0;
  part("title").textContent = facts.setup ? "Set-up" : damaged ? "Recovery" : "The device is running";
  part("problems").replaceChildren(
    ...facts.problems.map((text) => Object.assign(document.createElement("li"), { textContent: text })),
  );
  part("app").hidden = false;
  part("trouble").hidden = !damaged;
  part("whole").hidden = damaged;
  part("open").hidden = facts.setup; // it leads back here until set-up has ended
  part("restore").hidden = !facts.api;
  part("safe").hidden = !facts.safe_mode;
  part("account").hidden = facts.account || !facts.api;
  part("network").hidden = !facts.setup || !facts.api || !filled;
  part("finish").hidden = !facts.setup || !facts.api;
  part("console").hidden = !facts.api;
  part("no-api").hidden = facts.api;
  return facts;
}

async function begin() {
  const facts = await show();
  if (!facts.api) return;
  part("version").textContent = await command("version");
  if (!facts.setup) return;
  await fillNetwork();
  await show();
}

begin().catch((error) => {
  part("trouble-with-page").textContent = error.message;
  part("trouble-with-page").hidden = false;
});
