// What happens on the device, live, by a WebSocket in machine mode. Without it the page asks now and then.

import { FrameReader } from "./bytes.js";
import { emit, on, state } from "./state.js";

const FIRST_MS = 2000;
const LAST_MS = 60_000;
// Each session begins as the owner has saved it; these say what following needs.
const LINES = ["set system.print_level all", "set system.cmd.buffered 0", "events"];

/** @type {WebSocket|null} */
let socket = null;
let wait = FIRST_MS;
let paused = false;
/** @type {number|undefined} */
let timer;

/** @param {string} path */
export const socketUrl = (path) => `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;

export const live = () => socket?.readyState === WebSocket.OPEN;

function open() {
  clearTimeout(timer);
  if (paused || document.hidden || socket || state.connection !== "online") return;
  const reader = new FrameReader();
  const one = new WebSocket(socketUrl("/terminal?mode=machine"));
  socket = one;
  one.binaryType = "arraybuffer";
  one.onopen = () => {
    wait = FIRST_MS;
    one.send(LINES.map((line) => `${line}\r\n`).join(""));
    emit("live");
  };
  one.onmessage = (message) => {
    try {
      for (const frame of reader.feed(new Uint8Array(message.data))) {
        if (frame.kind === "L") tell(new TextDecoder().decode(frame.body));
      }
    } catch {
      one.close();
    }
  };
  one.onclose = () => {
    if (socket !== one) return;
    socket = null;
    emit("live");
    timer = setTimeout(open, wait);
    wait = Math.min(wait * 2, LAST_MS);
  };
}

/** @param {string} text */
function tell(text) {
  let event;
  try {
    event = JSON.parse(text);
  } catch {
    return;  // log text of something else
  }
  if (event && typeof event.event === "string") emit("device", event);
}

export function follow() {
  on("connection", () => { if (state.connection === "online") open(); });
  // The device has two places: pages that nobody looks at leave them to those who do.
  document.addEventListener("visibilitychange", () => { if (document.hidden) hangUp(); else open(); });
  open();
}

/** Give the place to a terminal. */
export function stop() {
  paused = true;
  hangUp();
}

function hangUp() {
  clearTimeout(timer);
  const one = socket;
  socket = null;
  one?.close();
  emit("live");
}

export function goOn() {
  paused = false;
  open();
}
