// Status: what this device is and how it is; the account, the server that manages it, restart, factory reset.

import { send, said } from "./device.js";
import { action, ask, card, field, form, h, input, list, notice, refresh, select } from "./dom.js";
import { inSafeMode, on, state } from "./state.js";
import * as updating from "./updating.js";
import { duration, facts, line, release, size } from "./words.js";
import { accountForm } from "./account.js";

export const title = "Status";
const RESULTS = ["none", "updated", "no update required", "failed", "no network set", "the network could not be joined",
  "the server cannot be reached", "the server refused (403)", "the server did not understand (400)", "the server knows no such release (404)"];

/** The notice of how the last update or restart has ended, kept up to date. @param {AbortSignal} signal */
export function lastOutcome(signal) {
  const place = h("div");
  const show = () => {
    const found = updating.outcome;
    place.replaceChildren(...(found ? [notice(found.kind, h("p", {}, h("strong", {}, found.text)), found.detail && h("p", {}, found.detail),
      h("button", { type: "button", onclick: updating.forget }, "Dismiss"))] : []));
  };
  on("outcome", show, signal);
  show();
  return place;
}

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal }) {
  const known = list([]);
  const account = h("div");
  const dms = h("div");
  root.append(lastOutcome(signal), account, card("Device", known), dms, restarts(), setup(signal));
  const draw = () => refresh(known, [...deviceFacts().children]);
  on("system", draw, signal);
  draw();
  await Promise.all([showAccount(account), showDms(dms)]);
}

function deviceFacts() {
  const all = state.system;
  const { product, version, built, zentri, board } = release(all["system.version"] ?? "");
  const good = all["system.boot.good"] === "1";
  const known = (/** @type {string} */ name) => all[name] || "–";
  return list([
    ["Name", known("system.name")], ["Product", product || "–"], ["Version", version || "–"], ["Built", built || "–"],
    ["Zentri, board", `${zentri || "–"}, ${board || "–"}`], ["UUID", h("span", { class: "mono" }, known("system.uuid"))],
    ["Running for", duration(Number(all["system.uptime"] ?? NaN))], ["Time (UTC)", known("system.utc")],
    ["Memory available", size(Number(all["system.memory"] ?? NaN))],
    ["Slot", all["system.boot.slot"] === "r" ? "r (the safe-mode system)" : known("system.boot.slot")],
    ["This boot", [h("span", { class: `badge ${good ? "good" : "warn"}` }, good ? "good" : "not confirmed yet"), " ", good ? "" : known("system.boot.health")]],
    ["Safe mode", inSafeMode() ? h("span", { class: "badge warn" }, "yes") : "no"],
    ["Faults counted", [known("system.fault.count"), " of 8. ", h("a", { href: "#/health" }, "Show faults")]],
  ]);
}

/** @param {HTMLElement} place */
async function showAccount(place) {
  const found = facts((await send("get http.server")).text);
  if (found["http.server.username"] && found["http.server.password"]) {
    place.replaceChildren(card("Account", h("p", {}, `Set: only “${found["http.server.username"]}” may command this device here. `, h("a", { href: "#/settings" }, "Change it"))));
    return;
  }
  place.replaceChildren(card("Account", notice("warn", h("p", {}, h("strong", {}, "Nobody has set a password. "),
    "Until then everybody in this network can command the device. Set a user name and a password now.")), accountForm()));
}

/** @param {HTMLElement} place */
async function showDms(place) {
  const draw = async () => {
    const found = facts((await send("get dms")).text);
    const number = Number(found["dms.ota_result"]);
    facted.replaceChildren(list([
      ["Server", `${found["dms.host"] || "–"}:${found["dms.port"] || "–"}`], ["Claimed", found["dms.claimed"] === "1" ? "yes" : "no, as far as this device knows"],
      ["Product", found["dms.product"] || "–"], ["Gets releases", found["dms.tag"] || "–"], ["Last update", RESULTS[number] ?? String(number)],
    ]));
  };
  const facted = h("div");
  const asking = action("Ask the server now", async () => { const text = (await send("dms status", { timeoutMs: 130_000 })).text; await draw(); return text; });
  place.replaceChildren(card("Device management", facted, h("div", { class: "row" }, asking.button), asking.result,
    h("details", {}, h("summary", {}, "Claim this device"),
      form([field("How", select("how", [["user", "with my account on the server"], ["product", "with a product's one-time token"]], "user")),
        field("User name or product", input("user", { required: true, maxlength: 256 })),
        field("Password or token", input("secret", { type: "password", required: true, maxlength: 256 }), "It goes to the server and is not kept.")],
      "Claim", async ({ user, secret }, made) => {
        const answer = await send(`dms claim ${line(user, secret)}`, { timeoutMs: 130_000 });
        made.reset();
        await draw();
        return said(answer) || "The device is claimed.";
      })),
    h("details", {}, h("summary", {}, "Activate: bind it to a product"),
      form([field("Product code", input("code", { required: true, maxlength: 68 }), "such as ACME-VIRT_SENSOR")], "Activate", async ({ code }) => {
        const answer = await send(`dms activate ${line(code)}`, { timeoutMs: 130_000 });
        await draw();
        return said(answer) || `The device belongs to ${code} now.`;
      }))));
  await draw();
}

function restarts() {
  const restart = action("Restart", async () => {
    const yes = await ask("Restart the device?", ["It is away for about a minute. What was set but not saved is lost."], "Restart");
    return yes ? `${await updating.restart()}. The page waits for the device.` : null;
  });
  return h("div", {}, card("Restart", h("div", { class: "row" }, restart.button), restart.result),
    h("section", { class: "card danger" }, h("h2", {}, "Factory reset"),
      h("p", {}, "Forgets what was put into this device and restarts it. Installed firmware, identity, claim and the list of faults stay."),
      form([
        field("What is forgotten", select("what", [["all", "settings, files, applications: all gone for good"], ["settings", "settings only: files and applications stay"]], "all")),
        field("MAC address of this device", input("mac", { required: true, maxlength: 32 }), "It is on the label and on the page Network; it must be typed so that no other device is reset."),
      ], "Reset to factory settings", async ({ what, mac }) => {
        const lost = what === "all" ? "All settings, all files (this page's own too) and all applications are lost for good." : "All settings are lost for good, user name and password too.";
        const yes = await ask("Factory reset?", [lost, "The address of the device may change. This cannot be undone."], "Reset now");
        if (!yes) return null;
        return `${await updating.restart(`factory_reset${what === "all" ? "" : " -s"} ${line(mac)}`)}. Look for the device in the network if it does not come back here.`;
      }, { kind: "bad" })));
}

/** @param {AbortSignal} signal */
function setup(signal) {
  const now = h("span", {}, "…");
  const look = async () => { const text = (await send("setup status", { signal })).text.trim(); now.textContent = text; };
  const begin = action("Begin set-up mode", async () => { const { text } = await send("setup web"); await look(); return text; });
  const stop = action("End set-up mode", async () => { await send("setup stop"); await look(); return "Set-up mode is off."; });
  look().catch((error) => { now.textContent = error.message; });
  return card("Set-up mode", h("p", {}, "The device's first page becomes the one for setting it up, for a while. Now: ", now),
    h("div", { class: "row" }, begin.button, stop.button), begin.result, stop.result);
}
