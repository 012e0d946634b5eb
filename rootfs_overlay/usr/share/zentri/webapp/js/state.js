// What the whole page knows of the device, and who wants to hear of it.

/** `starting`, `online`, `offline` (no answer), `refused` (answers, but not to us), `auth` (wants a password). */
export const state = {
  connection: "starting",
  sentence: "",
  /** @type {Record<string, string>} the variables `system.*` as last heard */
  system: {},
  /** @type {Record<string, string>} the variables `ota.*` as last heard */
  ota: {},
  /** @type {{at: number}|null} a restart that was asked for and is waited for */
  restart: null,
};

const bus = new EventTarget();

/**
 * @param {string} name `connection`, `system`, `ota`, `device` (an event of the device), `back` (reachable again)
 * @param {(detail: any) => void} work
 * @param {AbortSignal} [signal]
 */
export function on(name, work, signal) {
  bus.addEventListener(name, (event) => work(/** @type {CustomEvent} */ (event).detail), { signal });
}

/**
 * @param {string} name
 * @param {unknown} [detail]
 */
export const emit = (name, detail) => bus.dispatchEvent(new CustomEvent(name, { detail }));

export const inSafeMode = () => state.system["system.safemode.status"] === "1";

/**
 * @param {string} connection
 * @param {string} [sentence]
 */
export function setConnection(connection, sentence = "") {
  const before = state.connection;
  if (before === connection && state.sentence === sentence) return;
  state.connection = connection;
  state.sentence = sentence;
  emit("connection");
  if (connection === "online" && before !== "online" && before !== "starting") emit("back");
}
