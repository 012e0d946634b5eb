"use strict";
// The page's side of scripts/panel/app.py. Everything that comes from the board is text and is shown as text.

const $ = (id) => document.getElementById(id);
const LINES_KEPT = 2000;
const AGAIN_MS = 1000;
const COMPLAINT_MS = 8000;
const KEYS = {
  Enter: "\r", Backspace: "\x7f", Tab: "\t", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D",
  Home: "\x1b[H", End: "\x1b[F", Delete: "\x1b[3~",
};

let socket = null;

function send(wish) {
  if (socket !== null && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(wish));
}

// --- a small terminal: what the console's line editor uses, and nothing more --------------------------------------------
class Terminal {
  constructor(element) {
    this.element = element;
    this.lines = [""];
    this.column = 0;
    this.escape = "";
  }

  write(text) {
    for (const char of text) this.take(char);
    this.draw();
  }

  take(char) {
    if (this.escape !== "") {
      this.escape += char;
      if (this.escape === "\x1b[" || this.escape.length > 16) this.escape = this.escape.length > 16 ? "" : this.escape;
      else if (this.escape[1] !== "[" || /[@-~]/.test(char)) this.act();
      return;
    }
    const last = this.lines.length - 1;
    if (char === "\x1b") this.escape = char;
    else if (char === "\r") this.column = 0;
    else if (char === "\n") {
      this.lines.push("");
      this.column = 0;
      if (this.lines.length > LINES_KEPT) this.lines.shift();
    } else if (char === "\b") this.column = Math.max(0, this.column - 1);
    else if (char >= " ") {
      const line = this.lines[last].padEnd(this.column);
      this.lines[last] = line.slice(0, this.column) + char + line.slice(this.column + 1);
      this.column += 1;
    }
  }

  act() {
    const [, number, letter] = /^\x1b\[?([0-9;]*)(.)$/s.exec(this.escape) || [null, "", ""];
    this.escape = "";
    const last = this.lines.length - 1;
    const count = Math.max(1, parseInt(number, 10) || 1);
    if (letter === "K" || letter === "J") {
      const erases = parseInt(number, 10) || 0;
      this.lines[last] = erases === 0 ? this.lines[last].slice(0, this.column) : "";
    } else if (letter === "C") this.column += count;
    else if (letter === "D") this.column = Math.max(0, this.column - count);
    else if (letter === "G") this.column = count - 1;
  }

  draw() {
    const atEnd = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    const last = this.lines[this.lines.length - 1].padEnd(this.column + 1);
    const cursor = document.createElement("span");
    cursor.className = "cursor";
    cursor.textContent = last[this.column];
    const before = [...this.lines.slice(0, -1), last.slice(0, this.column)].join("\n");
    this.element.replaceChildren(before, cursor, last.slice(this.column + 1));
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
  }
}

const terminal = new Terminal($("console"));

let leaving = false;
$("console").addEventListener("keydown", (event) => {
  if (event.key === "Escape") { leaving = true; return; }
  if (event.key === "Tab" && (leaving || event.shiftKey)) return; // the keyboard must be able to leave
  leaving = false;
  let text = KEYS[event.key];
  if (text === undefined && event.key.length === 1 && !event.altKey && !event.metaKey) {
    if (!event.ctrlKey) text = event.key;
    else if (/^[a-z]$/i.test(event.key) && !"vr".includes(event.key.toLowerCase()) && !selecting(event)) {
      text = String.fromCharCode(event.key.toLowerCase().charCodeAt(0) - 96);
    }
  }
  if (text === undefined) return;
  event.preventDefault();
  send({ do: "type", text });
});
$("console").addEventListener("paste", (event) => {
  event.preventDefault();
  send({ do: "type", text: event.clipboardData.getData("text").replace(/\r?\n/g, "\r") });
});

function selecting(event) {
  return event.key.toLowerCase() === "c" && String(getSelection()) !== "";
}

// --- the board ------------------------------------------------------------------------------------------------------------
let holding = false;
let latched = false;
let since = 0;

function press() {
  if (holding) return;
  holding = true;
  since = Date.now();
  send({ do: "press" });
  showHeld();
}

function release() {
  if (!holding || latched) return;
  holding = false;
  send({ do: "release" });
  $("held").textContent = "";
}

function showHeld() {
  if (!holding) return;
  $("held").textContent = `held for ${Math.floor((Date.now() - since) / 1000)} s`;
  setTimeout(showHeld, 500);
}

function toggle(event) {
  if (latched) { latched = false; release(); return true; }
  if (event.shiftKey) { press(); latched = true; return true; }
  return false;
}

const button = $("button");
button.addEventListener("pointerdown", (event) => {
  if (event.button !== 0 || toggle(event)) return;
  button.setPointerCapture(event.pointerId);
  press();
});
for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) button.addEventListener(name, release);
button.addEventListener("keydown", (event) => {
  if (![" ", "Enter"].includes(event.key)) return;
  event.preventDefault();
  if (!event.repeat && !toggle(event)) press();
});
button.addEventListener("keyup", (event) => { if ([" ", "Enter"].includes(event.key)) release(); });
button.addEventListener("contextmenu", (event) => event.preventDefault());
$("power").addEventListener("click", () => send({ do: "power", on: $("power").getAttribute("aria-checked") !== "true" }));
$("reset").addEventListener("click", () => send({ do: "reset" }));

// --- what comes ---------------------------------------------------------------------------------------------------------------
function showLook(look) {
  $("led").className = look.led ? "on" : "";
  $("led").setAttribute("aria-label", `lamp: ${look.led ? "on" : "off"}`);
  $("power").setAttribute("aria-checked", String(look.power));
  $("reset").disabled = !look.power;
  button.setAttribute("aria-pressed", String(look.pressed));
}

function showStatus(status) {
  if (!status.answers) {
    $("version").textContent = "The board does not answer now.";
    return;
  }
  $("version").textContent = status.version + (status.good ? ", this boot is good" : "");
  if (status.safe_mode) {
    const word = document.createElement("span");
    word.className = "safe";
    word.textContent = "SAFE MODE ";
    $("version").prepend(word);
  }
  $("slots").replaceChildren(...status.slots.map((cells) => {
    const row = document.createElement("tr");
    row.replaceChildren(...cells.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return row;
  }));
  $("faults").replaceChildren(...status.faults.map((text) => (
    Object.assign(document.createElement("li"), { textContent: text.replace(/^\d+: /, "") }))));
  $("no-faults").hidden = status.faults.length > 0;
  const update = status.update;
  $("update-state").textContent = update.state === "idle" ? "no update runs" : update.state;
  $("update-more").textContent = update.state !== "idle" ? `${update.percent} %, ${update.bytes} bytes received`
    : update.available ? `; release ${update.available} is available` : "";
  $("update-progress").value = update.state === "idle" ? 0 : update.percent;
}

let forget = 0;
function complain(text) {
  $("complaint").textContent = text;
  clearTimeout(forget);
  forget = setTimeout(() => { $("complaint").textContent = ""; }, COMPLAINT_MS);
}

function connect() {
  socket = new WebSocket(`ws://${location.host}/socket`);
  terminal.lines = [""];
  terminal.column = 0;
  socket.addEventListener("message", (event) => {
    const news = JSON.parse(event.data);
    if (news.kind === "board") $("name").textContent = news.name;
    else if (news.kind === "look") showLook(news);
    else if (news.kind === "status") showStatus(news);
    else if (news.kind === "console") terminal.write(news.text);
    else if (news.kind === "complaint") complain(news.text);
  });
  socket.addEventListener("close", () => {
    holding = latched = false;
    showLook({ power: false, led: false, pressed: false });
    showStatus({ answers: false });
    setTimeout(connect, AGAIN_MS);
  });
}

connect();
