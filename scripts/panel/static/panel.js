"use strict";
// The page's side of scripts/panel/app.py. Everything that comes from the board is text and is shown as text.

const $ = (id) => document.getElementById(id);
const LINES_KEPT = 5000;
const AGAIN_MS = 1000;
const COMPLAINT_MS = 8000;
const TYPED_AT_ONCE = 1000;
const BLINK_MS = 1500; // a lamp that has changed twice within this time blinks

let socket = null;

function send(wish) {
  if (socket !== null && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
}

function make(tag, text, name = "") {
  return Object.assign(document.createElement(tag), { textContent: text, className: name });
}

// --- the console ------------------------------------------------------------------------------------------------------
const terminal = new Terminal({
  scrollback: LINES_KEPT, screenReaderMode: true, fontSize: 14, fontFamily: "ui-monospace, Menlo, Consolas, monospace",
  theme: { background: "#101416", foreground: "#e6ecea" },
});
const fit = new FitAddon.FitAddon();
terminal.loadAddon(fit);
terminal.open($("console"));
new ResizeObserver(() => fit.fit()).observe($("console"));

// A real terminal answers such questions. Here that would be typing on the board's console, once for each page, and again
// for what the console asked in the past.
for (const question of [{ final: "n" }, { prefix: "?", final: "n" }, { final: "c" }, { prefix: ">", final: "c" },
  { prefix: "=", final: "c" }, { intermediates: "$", final: "p" }, { prefix: "?", intermediates: "$", final: "p" }, { final: "t" },
  { prefix: ">", final: "q" }]) terminal.parser.registerCsiHandler(question, () => true);
terminal.parser.registerDcsHandler({ intermediates: "$", final: "q" }, () => true);
for (const question of [4, 10, 11, 12]) terminal.parser.registerOscHandler(question, () => true);

terminal.onData((text) => {
  for (let start = 0; start < text.length; start += TYPED_AT_ONCE) send({ do: "type", text: text.slice(start, start + TYPED_AT_ONCE) });
});

let leaving = false;
terminal.attachCustomKeyEventHandler((event) => {
  if (event.type !== "keydown") return true;
  if (event.key === "Escape") { leaving = true; return false; }
  if (event.key === "Tab" && (leaving || event.shiftKey)) return false; // the keyboard must be able to leave
  if (!["Shift", "Control", "Alt", "Meta"].includes(event.key)) leaving = false;
  const letter = event.ctrlKey && !event.altKey ? event.key.toLowerCase() : "";
  return !(letter === "v" || (letter === "c" && terminal.hasSelection()));
});

// --- the button ---------------------------------------------------------------------------------------------------------
const fingers = new Set(); // pointer, key, latch: any of them holds it down
let downElsewhere = false;
let since = 0;

function isDown() {
  return fingers.size > 0 || downElsewhere;
}

function put(finger) {
  fingers.add(finger);
  if (fingers.size === 1) send({ do: "press" });
  showButton();
}

function take(finger) {
  if (fingers.delete(finger) && fingers.size === 0) send({ do: "release" });
  showButton();
}

function showButton() {
  button.setAttribute("aria-pressed", String(isDown()));
  if (isDown() && since === 0) {
    since = Date.now();
    count();
  } else if (!isDown()) {
    since = 0;
    say($("held"), "The button is up.");
    $("held-bar").value = 0;
  }
}

function count() {
  if (since === 0) return;
  const held = (Date.now() - since) / 1000;
  $("held-bar").value = Math.min(10, held);
  say($("held"), `The button is down for ${Math.floor(held)} s.`);
  setTimeout(count, 100);
}

function say(element, text) { // unchanged text is not read out again
  if (element.textContent !== text) element.textContent = text;
}

const button = $("button");
button.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  button.setPointerCapture(event.pointerId);
  put("pointer");
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(name, () => take("pointer"));
button.addEventListener("keydown", (event) => {
  if (![" ", "Enter"].includes(event.key)) return;
  event.preventDefault();
  if (!event.repeat) put("key");
});
button.addEventListener("keyup", (event) => { if ([" ", "Enter"].includes(event.key)) take("key"); });
button.addEventListener("blur", () => take("key"));
window.addEventListener("blur", () => { take("key"); take("pointer"); });
button.addEventListener("contextmenu", (event) => event.preventDefault());
$("latch").addEventListener("change", () => { if ($("latch").checked) put("latch"); else take("latch"); });
$("power").addEventListener("click", () => send({ do: "power", on: $("power").getAttribute("aria-checked") !== "true" }));
$("reset").addEventListener("click", () => send({ do: "reset" }));

// --- what is to be seen -------------------------------------------------------------------------------------------------
let look = { power: false, led: false, pressed: false };
let status = { answers: false };
let changes = [];
let steady = 0;

function showLamp() {
  clearTimeout(steady);
  changes = changes.filter((at) => Date.now() - at < BLINK_MS);
  const blinks = changes.length >= 2 && look.power;
  say($("led-word"), blinks ? "blinks" : look.led ? "lit" : "dark");
  if (changes.length > 0) steady = setTimeout(showLamp, BLINK_MS / 3);
}

function showLook(now) {
  if (now.led !== look.led) changes.push(Date.now());
  look = now;
  $("led").className = look.led ? "on" : "";
  showLamp();
  $("power").setAttribute("aria-checked", String(look.power));
  say($("power-word"), look.power ? "on" : "off");
  $("reset").disabled = !look.power;
  downElsewhere = look.pressed && fingers.size === 0;
  showButton();
  showStatus(status);
}

function showVersion() {
  if (socket === null || socket.readyState !== WebSocket.OPEN) return say($("version"), "The panel has ended; this page waits for it.");
  if (!look.power) return say($("version"), "The power is off.");
  if (!status.answers) {
    return say($("version"), "The board does not answer: it starts, or its network is not there. The console shows what it does.");
  }
  const text = status.version + (status.good ? ", this boot is good" : ", this boot is not good yet");
  if ($("version").textContent === (status.safe_mode ? "SAFE MODE" : "") + text) return;
  $("version").replaceChildren(...(status.safe_mode ? [make("span", "SAFE MODE", "safe")] : []), text);
}

function showStatus(now) {
  status = now;
  showVersion();
  const known = status.answers && look.power;
  for (const id of ["slots", "faults", "update-state", "update-progress"]) $(id).classList.toggle("stale", !known);
  if (!known) return; // what was known last stays, and is pale
  $("slots").replaceChildren(...status.slots.map((cells) => {
    const row = make("tr", "", cells.at(-1) === "yes" ? "runs" : "");
    row.replaceChildren(...cells.map((text) => make("td", text)));
    return row;
  }));
  $("no-slots").hidden = true;
  $("faults").replaceChildren(...status.faults.map((text) => make("li", text.replace(/^\d+: /, ""))));
  $("fault-count").textContent = status.faults.length ? `(${status.faults.length} of 8 until safe mode)` : "";
  $("no-faults").textContent = "None.";
  $("no-faults").hidden = status.faults.length > 0;
  showUpdate(status.update);
}

function showUpdate(update) {
  const runs = update.state !== "idle";
  say($("update-state"), runs ? update.state : "no update runs");
  say($("update-more"), runs ? `${update.percent} %, ${(update.bytes / 1024).toFixed(0)} KiB received`
    : update.available ? `release ${update.available} is available` : "");
  $("update-progress").value = runs ? update.percent : 0;
}

let forget = 0;
function complain(text) {
  $("complaint").textContent = text;
  clearTimeout(forget);
  forget = setTimeout(() => { $("complaint").textContent = ""; }, COMPLAINT_MS);
}

// --- the other end ------------------------------------------------------------------------------------------------------
const HEARS = {
  board: (news) => { $("name").textContent = news.name; document.title = `Board ${news.name}`; },
  look: showLook,
  status: showStatus,
  console: (news) => terminal.write(news.text),
  complaint: (news) => complain(news.text),
};

function connect() {
  socket = new WebSocket(`ws://${location.host}/socket`);
  socket.addEventListener("open", () => { terminal.reset(); showVersion(); });
  socket.addEventListener("message", (event) => {
    const news = JSON.parse(event.data);
    HEARS[news.kind](news);
  });
  socket.addEventListener("close", () => {
    fingers.clear(); // the panel has taken this page's finger away
    $("latch").checked = false;
    showLook({ power: false, led: false, pressed: false });
    setTimeout(connect, AGAIN_MS);
  });
}

connect();
