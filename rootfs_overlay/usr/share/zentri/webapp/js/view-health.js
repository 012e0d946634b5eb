// Health: slots, faults, and the device's log.

import { logs, send } from "./device.js";
import { action, ask, card, every, field, h, input, notice, table } from "./dom.js";
import { inSafeMode, on } from "./state.js";
import { rows } from "./words.js";

export const title = "Health";
const FOLLOW_MS = 3000;
const STATES = /** @type {Record<string, [string, string]>} */ ({ good: ["good", "good"], running: ["good", "running"], empty: ["", "empty"], "safe-mode": ["", "safe mode"] });

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal }) {
  const slots = h("div");
  const faults = h("div", { tabindex: "-1", role: "group", "aria-label": "Faults" });
  root.append(card("Slots", h("p", { class: "quiet" }, "Two slots take turns: an update is written to the one that does not run. Slot r holds the system for safe mode, and no update changes it."), slots), faults, log(signal));
  const look = async () => {
    const [found, listed] = [await send("slots", { signal }), await send("faults_print", { signal })];
    slots.replaceChildren(slotTable(found.text));
    const focused = faults.contains(document.activeElement);
    faults.replaceChildren(faultCard(listed.text, look));
    if (focused) faults.focus();  // what had it is gone
  };
  on("device", (event) => { if (["slot", "fault", "boot_good"].includes(event.event)) look().catch(() => undefined); }, signal);
  on("back", () => look().catch(() => undefined), signal);
  await look();
}

/** @param {string} text */
function slotTable(text) {
  return table("The device's slots", ["Slot", "Version", "State", "Tries left", "Good", "Runs"], rows(text).map((row) => {
    const [kind, word] = STATES[row.state] ?? ["warn", row.state];
    return [row.slot, row.version, h("span", { class: `badge ${kind}` }, word), row.tries, row.good, row.runs === "yes" ? h("strong", {}, "yes") : "no"];
  }));
}

/** @param {string} text @param {() => Promise<void>} look */
function faultCard(text, look) {
  const lines = text.split(/\r?\n/).filter((one) => /^\d+:/.test(one.trim()));
  const forget = action("Forget all faults", async () => {
    const yes = await ask("Forget all faults?", ["The list is lost. Eight faults lead to safe mode; forgetting them makes the next start a normal one."], "Forget them");
    if (!yes) return null;
    await send("faults_reset");
    await look();
    return null;
  }, { kind: "bad" });
  return card("Faults", h("p", { class: "quiet" }, "Each end that was not asked for: a crash, a hang, a damaged disk. Pulling the plug is none. Eight lead to safe mode."),
    lines.length ? h("ol", { class: "mono" }, lines.map((one) => h("li", {}, one.replace(/^\s*\d+:\s*/, "")))) : h("p", {}, "No faults."),
    inSafeMode() && notice("warn", h("p", {}, "To leave safe mode: repair what went wrong (an update, or a factory reset), forget the faults, restart.")),
    lines.length ? [h("div", { class: "row" }, forget.button), forget.result] : null);
}

/** @param {AbortSignal} signal */
function log(signal) {
  const shown = h("pre", { class: "log", tabindex: "0", role: "region", "aria-label": "The last lines of the log" });
  const look = async () => {
    const text = (await logs(signal)).join("\n");
    const atEnd = shown.scrollHeight - shown.scrollTop - shown.clientHeight < 40;
    if (text === shown.textContent) return;
    shown.textContent = text || "The log is empty.";
    if (atEnd) shown.scrollTop = shown.scrollHeight;
  };
  const again = action("Read again", async () => { await look(); return null; });
  const follow = input("follow", { type: "checkbox" });
  every(FOLLOW_MS, async () => { if (follow.checked) await look(); }, signal);
  look().catch((error) => { shown.textContent = error.message; });
  return card("Log", shown, field("follow it", follow), h("div", { class: "row" }, again.button), again.result);
}
