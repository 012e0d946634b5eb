// Terminal: the device's command line as on the serial console. Echo, history and completion are the device's own.

import { announce, card, field, h, input } from "./dom.js";
import * as events from "./events.js";
import { Screen } from "./screen.js";
import { state } from "./state.js";

export const title = "Terminal";
const KEPT_LINES = 2000;
const KEYS = /** @type {Record<string, string>} */ ({
  Enter: "\r", Backspace: "\x7f", Delete: "\x1b[3~", ArrowUp: "\x1b[A", ArrowDown: "\x1b[B", ArrowRight: "\x1b[C", ArrowLeft: "\x1b[D",
  Home: "\x1b[H", End: "\x1b[F",
});

/** @param {import("./app.js").Shown} shown */
export function show({ root, signal }) {
  const screen = new Screen();
  const done = h("div", { role: "log", "aria-live": "polite", "aria-label": "What the device has said" });
  const now = h("div");
  const view = h("div", { class: "screen mono", tabindex: "-1" }, done, now);
  const keys = h("textarea", { rows: 1, "aria-label": "Terminal keyboard", "aria-describedby": "terminal-keys", autocomplete: "off", autocapitalize: "off", autocorrect: "off", spellcheck: "false" });
  const status = h("p", { role: "status" }, "Connecting …");
  /** @type {WebSocket|null} */
  let socket = null;

  const type = (/** @type {string} */ text) => {
    follows = true;
    if (socket?.readyState === WebSocket.OPEN) socket.send(text);
    else status.textContent = "The terminal is not connected; “Connect again” does that.";
  };
  let follows = true;
  const draw = () => {
    // Who has scrolled back to read stays there until they type.
    follows ||= view.scrollHeight - view.scrollTop - view.clientHeight < 40;
    if (screen.cleared) done.replaceChildren();
    screen.cleared = false;
    done.append(...screen.finished.splice(0).map((text) => h("div", {}, text)));
    while (done.childElementCount > KEPT_LINES) done.firstChild?.remove();
    const [before, under, after] = screen.line();
    now.replaceChildren(before, h("span", { class: "cursor" }, under), after);
    if (follows) view.scrollTop = view.scrollHeight;
    follows = false;
  };
  let drawing = false;
  const later = () => {
    if (drawing) return;
    drawing = true;
    requestAnimationFrame(() => { drawing = false; draw(); });
  };

  const connect = (/** @type {boolean} */ alone) => {
    const one = new WebSocket(events.socketUrl("/terminal"));
    socket = one;
    let opened = false;
    one.onopen = () => { opened = true; again.hidden = true; status.textContent = "Connected."; };
    one.onmessage = (message) => { screen.write(String(message.data)); later(); };
    one.onclose = () => {
      if (signal.aborted || socket !== one) return;
      if (!opened && !alone) {  // two are open already; the one for events gives way
        events.stop();
        setTimeout(() => { if (!signal.aborted) connect(true); }, 500);
        return;
      }
      again.hidden = false;
      status.textContent = opened ? "The connection has ended. What ran without an end of its own was stopped."
        : state.connection === "online" ? "The terminal could not be opened: the device has two at most. Close another one and connect again." : "The device is not reachable.";
    };
  };
  const again = h("button", { type: "button", hidden: true, onclick: () => {
    if (socket?.readyState === WebSocket.OPEN) return;
    status.textContent = "Connecting …";
    connect(false);
    keys.focus();
  } }, "Connect again");

  let leaving = false;
  keys.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      leaving = true;
      announce("The next Tab leaves the terminal.");
      event.preventDefault();
      return;
    }
    if (event.key === "Tab") {
      if (leaving || event.shiftKey) return;  // on to the next control, or back
      event.preventDefault();
      type("\t");
      return;
    }
    if (!["Shift", "Control", "Alt", "Meta"].includes(event.key)) leaving = false;
    const letter = event.key.length === 1 ? event.key.toLowerCase() : "";
    const copies = letter === "c" && String(getSelection());
    if (event.ctrlKey && !event.altKey && !event.metaKey && !event.shiftKey && "acdeklnpuw".includes(letter) && letter && !copies) {
      event.preventDefault();
      type(String.fromCharCode(letter.charCodeAt(0) - 96));
    } else if (Object.hasOwn(KEYS, event.key) && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      type(KEYS[event.key]);
    }
  });
  keys.addEventListener("blur", () => { leaving = false; });
  const typed = () => {
    const text = keys.value.replace(/\r?\n/g, "\r");
    keys.value = "";
    if (text) type(text);
  };
  keys.addEventListener("input", (/** @type {InputEvent} */ event) => { if (!event.isComposing) typed(); });
  keys.addEventListener("compositionend", typed);
  view.addEventListener("click", () => { if (!String(getSelection())) keys.focus({ preventScroll: true }); });

  const whole = input("line", { maxlength: 2048, enterkeyhint: "send" });
  const button = (/** @type {string} */ label, /** @type {string} */ text) => h("button", { type: "button", onclick: () => type(text) }, label);
  root.append(card("Command line", status,
    h("div", { class: "terminal" }, view, keys),
    h("p", { class: "quiet", id: "terminal-keys" }, "Type into the black field: Tab completes, arrows bring back earlier lines, Ctrl-C stops. Esc and then Tab leaves it, and so does Shift-Tab."),
    h("form", { onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); type(`${whole.value}\r`); whole.value = ""; } },
      field("Or a whole line", whole), h("div", { class: "row" }, h("button", { class: "main" }, "Send line"),
        button("Stop (Ctrl-C)", "\x03"), button("Earlier line", KEYS.ArrowUp), again))));
  connect(false);
  signal.addEventListener("abort", () => {
    const one = socket;
    socket = null;
    one?.close();
    events.goOn();
  });
}
