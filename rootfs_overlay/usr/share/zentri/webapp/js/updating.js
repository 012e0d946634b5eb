// Updates and restarts as they go on, whichever view is shown: asked for here, by the server, or at the console.

import { send, said } from "./device.js";
import { announce } from "./dom.js";
import { live } from "./events.js";
import { emit, on, state } from "./state.js";
import { facts, line, release } from "./words.js";

const OURS_MS = 16 * 60_000;
const SOON_MS = 2000;
const CALM_MS = 5000;
const KEPT = "zentri-seen";
export const WORDS = Object.freeze({
  idle: "No update is running", checking: "Looking for an update", downloading: "Downloading and installing",
  verifying: "Checking what was written", activating: "Preparing the start of the new release",
  rebooting: "Installed: it starts with the next restart", reverting: "Taking the new release back",
  confirming: "The new release is on trial",
});

/** A restart that takes longer than this was none. */
const RESTART_MS = 5 * 60_000;
const SAFE_SLOT = "r";
/** @type {{kind: string, text: string, detail: string}|null} what became of the last update or restart */
export let outcome = null;
/** Whether an `ota` of this page waits for its answer. */
let asked = false;
let told = "";
/** @type {number|undefined} */
let timer;
/** @type {{uptime: number, version: string, slot: string, ota: string, trial: string, from: string}} the device as it was last seen; `trial`: the release before the one on trial, in the slot `from` */
let seen = remembered();

function remembered() {
  const empty = { uptime: -1, version: "", slot: "", ota: "", trial: "", from: "" };
  try {
    return { ...empty, ...JSON.parse(sessionStorage.getItem(KEPT) ?? "{}") };
  } catch {
    return empty;
  }
}

function keep() {
  try {
    sessionStorage.setItem(KEPT, JSON.stringify(seen));
  } catch {
    // Without storage a page that is loaded again does not know what was before; nothing else depends on it.
  }
}

export const phase = () => state.ota["ota.state"] || "idle";
export const running = () => asked || !["idle", "rebooting", "confirming"].includes(phase());
/** Installed, and waits for its restart. */
export const installed = () => phase() === "rebooting";
export const percent = () => Math.max(0, Math.min(100, Number(state.ota["ota.progress"]) || 0));

/** @param {string} kind @param {string} text @param {string} [detail] */
function end(kind, text, detail = "") {
  outcome = { kind, text, detail };
  announce(`${text} ${detail}`);
  emit("outcome");
}

export function forget() {
  outcome = null;
  emit("outcome");
}

/** Ask where the update stands; goes on by itself while one is running. */
export async function look() {
  clearTimeout(timer);
  try {
    const found = facts((await send("get ota", { timeoutMs: 15_000 })).text);
    const before = phase();
    state.ota = found;
    if (["activating", "rebooting", "confirming"].includes(phase())) remember(phase());
    speak(before);
    emit("ota");
  } catch {
    // The pulse tells that the device is not there.
  }
  clearTimeout(timer);
  if (running()) timer = setTimeout(look, live() ? CALM_MS : SOON_MS);
}

/** What an update has come to, for the time after a restart. @param {string} ota */
function remember(ota) {
  seen.ota = ota;
  keep();
}

/** Tell each state once, and each quarter of a download. @param {string} before */
function speak(before) {
  const now = phase();
  const step = `${now} ${now === "downloading" ? Math.floor(percent() / 25) : ""}`;
  if (step === told || (now === "idle" && before === "idle")) return;
  told = step;
  if (now !== "idle") announce(`${/** @type {any} */ (WORDS)[now] ?? now}${now === "downloading" ? `, ${percent()} %` : ""}`);
}

/**
 * Start an update and follow it to its end. Throws with the device's sentence if it fails.
 * @param {...string} words after `ota`
 * @returns {Promise<string>} what the device said
 */
export async function install(...words) {
  if (asked) throw new Error("An update that was started here is running already.");
  asked = true;
  outcome = null;
  emit("outcome");
  emit("ota");
  timer = setTimeout(look, 500);
  try {
    return said(await send(line("ota", ...words), { timeoutMs: OURS_MS, aside: true }));
  } catch (error) {
    if (!(/** @type {any} */ (error).lost)) throw error;
    return "The connection broke off. An update goes on without it if it had begun; this page follows it as soon as the device answers.";
  } finally {
    asked = false;
    await look();
  }
}

/** Restart the device; the page waits for it. @param {string} [command] */
export async function restart(command = "reboot") {
  const answer = await send(command);
  expect();
  return said(answer);
}

/** The device is about to go away. @param {boolean} [updated] into a release that was just installed */
export function expect(updated = false) {
  if (updated) {
    state.ota = { ...state.ota, "ota.state": "rebooting" };
    remember("rebooting");
  }
  state.restart = { at: Date.now() };
  emit("restart");
  setTimeout(() => emit("restart"), RESTART_MS + 1);
}

/** Whether the device is away because it restarts. */
export const restarting = () => state.restart !== null && Date.now() - state.restart.at < RESTART_MS;

/** A look at `system.*`: has it restarted, and into what? */
async function compare() {
  const now = {
    uptime: Number(state.system["system.uptime"]), version: release(state.system["system.version"]).version,
    slot: state.system["system.boot.slot"] ?? "", good: state.system["system.boot.good"] === "1",
  };
  const before = seen;
  const moved = now.version !== before.version || now.slot !== before.slot;
  // A device that was away for long may have run for longer by now than when it was last seen.
  const again = before.uptime >= 0 && (now.uptime < before.uptime || moved);
  seen = { ...before, uptime: now.uptime, version: now.version, slot: now.slot, ota: again ? "" : before.ota };
  if (again) {
    state.restart = null;
    state.ota = {};
    const tell = restarted(before, now, moved);  // before anything is waited for: this may be called again meanwhile
    emit("restart");
    await look();
    await tell();
  } else if (seen.trial && now.good) {
    settled();
  }
  keep();
  if (phase() !== seen.ota || !live() || running() || !state.ota["ota.state"]) await look();
  seen.ota = phase();
  keep();
}

/**
 * What a restart has brought; to be told when it is known how the update stands.
 * @param {typeof seen} before @param {{version: string, slot: string, good: boolean}} now @param {boolean} moved
 * @returns {() => void|Promise<void>}
 */
function restarted(before, now, moved) {
  const tried = before.trial || before.ota === "confirming";
  const back = before.trial ? now.version === before.trial && (now.slot === before.from || before.from === before.slot) : moved;
  if (now.slot === SAFE_SLOT && !(before.trial && before.from === SAFE_SLOT)) {
    seen.trial = "";
    return () => end("bad", "The device has restarted in safe mode.", "It had ended with errors too often; the page Health shows which.");
  }
  if (tried && back) {
    seen.trial = "";
    return () => rolledBack(before.version, now.version);
  }
  if (before.trial) {  // it may start several times before it is good
    return () => (now.good ? settled() : end("warn", `The device has restarted, and still runs ${now.version} on trial (before: ${before.trial}).`, state.system["system.boot.health"]));
  }
  if (moved) {
    [seen.trial, seen.from] = [before.version, before.slot];
    return () => (now.good ? settled() : end("warn", `The device runs ${now.version} on trial (before: ${before.version}).`, state.system["system.boot.health"]));
  }
  if (["rebooting", "activating"].includes(before.ota)) return () => rolledBack("", now.version);
  return () => end("good", `The device has restarted and runs ${now.version}.`);
}

function settled() {
  end("good", `The device runs ${seen.version} (before: ${seen.trial}). The new release is good and stays.`);
  seen.trial = "";
}

/** Say why a release was taken back, as far as log and faults know. @param {string} wanted @param {string} version */
async function rolledBack(wanted, version) {
  let why = "";
  try {
    const log = (await send("log -n 200")).text.split(/\r?\n/).filter((one) => /rolled back|taken back/.test(one));
    const faults = (await send("faults_print")).text.split(/\r?\n/).filter((one) => /^\d+:/.test(one.trim()));
    why = log.at(-1) ?? faults.at(-1) ?? "";
  } catch {
    // It is told without a reason.
  }
  end("bad", `The new release ${wanted ? `${wanted} ` : ""}was taken back; the device runs ${version}.`, why || "Log and faults are on the page Health.");
}

/** @param {any} event */
function hear(event) {
  if (event.event === "update") {
    state.ota = { ...state.ota, "ota.state": event.state };
    const text = `${event.version ? `Release ${event.version}: ` : ""}${String(event.outcome ?? "").replaceAll("_", " ")}${event.reason ? ` (${event.reason})` : ""}.`;
    if (event.outcome && event.outcome !== "installed" && !asked) end(event.outcome === "cancelled" ? "warn" : "bad", text);
    if (!event.outcome && event.state === "rebooting") {
      seen.ota = "rebooting";
      if (state.ota["ota.reboot"] === "auto") expect();
    }
    keep();
    speak("");
    emit("ota");
    clearTimeout(timer);
    timer = setTimeout(look, 300);
  } else if (event.event === "update_progress") {
    state.ota = { ...state.ota, "ota.state": event.state, "ota.progress": String(event.percent), "ota.bytes": String(event.received_bytes) };
    speak("");
    emit("ota");
  } else if (event.event === "update_available") {
    state.ota = { ...state.ota, "ota.available": event.version };
    emit("ota");
  }
}

export function begin() {
  on("device", hear);
  on("system", compare);
  on("back", look);
}
