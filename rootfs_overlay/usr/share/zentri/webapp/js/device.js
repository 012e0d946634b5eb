// Commands: sent one after the other through a small queue, answered with text or bytes, or failing with a sentence.

import { fromBase64, toBase64 } from "./bytes.js";
import { setConnection, state } from "./state.js";

/** At the same time; the device runs three for everybody, and one place is left to an update that is followed. */
const PLACES = 2;
const TIMEOUT_MS = 30_000;
/** So much longer while the focus is elsewhere: giving up would close the browser's question for the password under the hands of who types it. */
const QUESTION_MS = 60_000;
const TRIES = 4;
/** How the device says that a command may have been carried out although there is no answer. */
const UNSURE = /may (have been|still)/;

/** What failed: `message` is the device's own sentence, or why it could not be asked. */
export class DeviceError extends Error {
  /**
   * @param {string} sentence
   * @param {{code?: number, status?: number, lost?: boolean}} [how] `lost`: whether it was carried out is not known
   */
  constructor(sentence, { code = 0, status = 0, lost = false } = {}) {
    super(sentence);
    this.code = code;
    this.status = status;
    this.lost = lost;
  }
}

/** @typedef {{text: string, log: string[], bytes: Uint8Array}} Answer */
/**
 * @typedef {object} How
 * @property {Uint8Array} [data] bytes that follow the line
 * @property {boolean} [binary] the answer is bytes
 * @property {number} [timeoutMs]
 * @property {AbortSignal} [signal] given up early
 * @property {boolean} [pulse] no answer in time means that the device is not there
 * @property {boolean} [aside] not through the queue: for the one command that lasts
 */

let running = 0;
/** @type {(() => void)[]} */
const waiting = [];

async function place() {
  if (running >= PLACES) await new Promise((resolve) => waiting.push(() => resolve(null)));
  else running++;
}

function leave() {
  const next = waiting.shift();
  if (next) next();
  else running--;
}

const pause = (/** @type {number} */ ms) => new Promise((resolve) => setTimeout(resolve, ms));

/**
 * Carry out a command line. Throws DeviceError.
 * @param {string} text the line
 * @param {How} [how]
 * @returns {Promise<Answer>}
 */
export async function send(text, how = {}) {
  const body = { command: text, flags: (how.data ? 4 : 0) + (how.binary ? 2 : 0), ...(how.data && { data: toBase64(how.data) }) };
  const init = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  return answer(await inTurn("/command", init, how), how.binary === true);
}

/** The last lines of the device's log. @param {AbortSignal} signal @returns {Promise<string[]>} */
export const logs = async (signal) => (await inTurn("/log", {}, { signal })).logs;

/** @param {string} path @param {RequestInit} init @param {How} how @returns {Promise<any>} */
async function inTurn(path, init, how) {
  if (how.aside) return attempt(path, init, how);
  await place();
  try {
    return await attempt(path, init, how);
  } finally {
    leave();
  }
}

/** @param {string} path @param {RequestInit} init @param {How} how @returns {Promise<any>} */
async function attempt(path, init, how) {
  for (let tries = 1; ; tries++) {
    // Each further request would count as another try with the wrong password.
    if (state.connection === "auth") throw new DeviceError(state.sentence, { status: 401 });
    const { response, body } = await request(path, init, how);
    if (response.ok) {
      setConnection("online");
      return body;
    }
    const sentence = body.error || `The device answered with status ${response.status}.`;
    const wait = Number(response.headers.get("Retry-After")) * 1000 || 1000;
    // A full queue is waited for; whatever may have been carried out is not sent twice.
    const again = [429, 503].includes(response.status) && !UNSURE.test(sentence) && wait <= 5000;
    if (again && tries < TRIES && !how.signal?.aborted) {
      await pause(wait);
      continue;
    }
    if (response.status === 401) setConnection("auth", "The device wants a user name and a password.");
    throw new DeviceError(sentence, { status: response.status, lost: UNSURE.test(sentence) });
  }
}

/** @param {string} path @param {RequestInit} init @param {How} how */
async function request(path, init, how) {
  const stop = new AbortController();
  let late = false;
  const give = () => stop.abort();
  const giveUp = () => { late = true; give(); };
  let timer = setTimeout(() => {
    if (document.hidden || document.hasFocus()) giveUp();
    else timer = setTimeout(giveUp, QUESTION_MS);
  }, how.timeoutMs ?? TIMEOUT_MS);
  how.signal?.addEventListener("abort", give);
  try {
    how.signal?.throwIfAborted();
    const response = await fetch(path, { ...init, signal: stop.signal });
    const text = await response.text();  // a connection may break in the middle of an answer, too
    return { response, body: response.headers.get("Content-Type")?.startsWith("application/json") ? JSON.parse(text) : {} };
  } catch {
    if (how.signal?.aborted) throw new DeviceError("It was stopped.", { lost: true });
    if (!late || how.pulse) setConnection("offline", "The device does not answer.");
    throw new DeviceError("The device did not answer; whether it did this is not known. Look again when it is back.", { lost: true });
  } finally {
    clearTimeout(timer);
    how.signal?.removeEventListener("abort", give);
  }
}

/** @param {any} body @param {boolean} binary @returns {Answer} */
function answer(body, binary) {
  const log = body.log ?? [];
  const coded = (body.flags & 2) !== 0;
  const raw = coded ? fromBase64(body.response) : new TextEncoder().encode(body.response);
  // An answer ends with CRLF; one that is empty has none.
  const bytes = raw.length >= 2 && raw.at(-2) === 13 && raw.at(-1) === 10 ? raw.subarray(0, -2) : raw;
  const text = binary && body.code === 0 ? "" : new TextDecoder().decode(bytes);
  if (body.code !== 0) throw new DeviceError(log.at(-1) || text || "The command failed.", { code: body.code });
  return { text, log, bytes };
}

/**
 * The answer's text, and what was said before it.
 * @param {Answer} given
 */
export const said = (given) => [...given.log, given.text].filter((part) => part.trim() && part !== "Success").join("\n");
