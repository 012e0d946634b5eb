// The page: which view is shown, what is told above all of them, and the pulse by which a lost device is noticed.

import { send } from "./device.js";
import { announce, h, notice, part, refresh } from "./dom.js";
import * as events from "./events.js";
import { emit, inSafeMode, on, setConnection, state } from "./state.js";
import * as updating from "./updating.js";
import { facts, release } from "./words.js";
import * as files from "./view-files.js";
import * as gpio from "./view-gpio.js";
import * as health from "./view-health.js";
import * as network from "./view-network.js";
import * as settings from "./view-settings.js";
import * as status from "./view-status.js";
import * as terminal from "./view-terminal.js";
import * as update from "./view-update.js";

const PULSE_MS = 10_000;
const FIRST_MS = 500;
/** @typedef {{root: HTMLElement, signal: AbortSignal, rest: string}} Shown */
/** @type {Record<string, {title: string, show: (shown: Shown) => void|Promise<void>, leave?: () => Promise<boolean>}>} */
const VIEWS = { status, network, files, gpio, update, health, terminal, settings };

let current = "";
let hash = "";
let leaving = new AbortController();
/** Whether the view could not be shown whole. */
let failed = false;

/** @param {boolean} [first] */
async function route(first = false) {
  const [, wanted = "", rest = ""] = /^#\/?([a-z]*)\/?(.*)$/.exec(location.hash) ?? [];
  const name = Object.hasOwn(VIEWS, wanted) ? wanted : "status";
  if (!first && location.hash === hash) return;
  if (current && VIEWS[current].leave && !(await /** @type {any} */ (VIEWS[current]).leave())) {
    history.replaceState(null, "", hash);
    return;
  }
  hash = location.hash;
  leaving.abort();
  leaving = new AbortController();
  current = name;
  const view = VIEWS[name];
  part("title").textContent = view.title;
  showName();
  for (const link of part("pages").querySelectorAll("a")) {
    if (link.dataset.view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  menu(false);
  const root = h("div");
  part("view").replaceChildren(root);
  if (!first) {
    scrollTo(0, 0);
    part("title").focus();
  }
  failed = false;
  const { signal } = leaving;
  try {
    await view.show({ root, signal, rest });
  } catch (error) {
    if (signal.aborted) return;
    failed = true;
    root.append(notice("bad", error instanceof Error ? error.message : String(error)));
  }
}

/** @param {boolean} open */
function menu(open) {
  part("nav").classList.toggle("open", open);
  part("menu").setAttribute("aria-expanded", String(open));
}

function showName() {
  const name = state.system["system.name"] || "Zentri device";
  const { product, version } = release(state.system["system.version"] ?? "");
  part("device-name").textContent = name;
  part("device-version").textContent = `${product} ${version}`.trim();
  document.title = `${VIEWS[current]?.title ?? ""} – ${name}`;
}

/** What must be known whatever is looked at. */
function banners() {
  const told = [];
  const again = h("button", { type: "button", onclick: signIn }, "Sign in");
  if (state.connection === "offline") {
    told.push(updating.restarting()
      ? notice("warn", h("p", {}, "The device is restarting. This page goes on by itself when it is back."))
      : notice("bad", h("p", {}, "The device is not reachable; trying again. Is it switched on, and is its address still the same?")));
  } else if (state.connection === "auth") told.push(notice("bad", h("p", {}, state.sentence), again));
  else if (state.connection === "refused") told.push(notice("bad", h("p", {}, `The device refuses: ${state.sentence}`)));
  if (inSafeMode()) {
    told.push(notice("warn", h("p", {}, h("strong", {}, "Safe mode. "), "The device has restarted with errors too often, so it runs a small system of its own; ",
      "your application does not run. See the ", h("a", { href: "#/health" }, "faults"), ", repair it by an ", h("a", { href: "#/update" }, "update"),
      ", then forget the faults and restart.")));
  }
  if (updating.running() && current !== "update") told.push(notice("", h("p", {}, "An update is running. ", h("a", { href: "#/update" }, "Follow it"))));
  refresh(part("banners"), told);
}

let waitMs = FIRST_MS;
let asking = false;
/** @type {number|undefined} */
let timer;

/** Ask how the device is; a lost one is asked sooner, and then less often. */
async function pulse() {
  clearTimeout(timer);
  if (asking || state.connection === "auth") return;
  asking = true;
  try {
    if (!document.hidden || state.connection !== "online") {
      state.system = facts((await send("get system", { timeoutMs: 15_000, pulse: true })).text);
      emit("system");
    }
  } catch (error) {
    const { status: code = 0, message } = /** @type {any} */ (error);
    if (code && code !== 401) setConnection("refused", message);
  }
  asking = false;
  const lost = state.connection !== "online";
  waitMs = lost ? Math.min(waitMs * 2, PULSE_MS) : FIRST_MS;
  clearTimeout(timer);
  timer = setTimeout(pulse, lost ? waitMs : PULSE_MS);
}

/** The browser asks for the password when the device does; nothing that was typed into this page is lost by that. */
async function signIn() {
  setConnection("starting");
  await pulse();
  if (state.connection === "online") emit("back");
}

function start() {
  part("pages").append(...Object.entries(VIEWS).map(([name, view]) => h("li", {}, h("a", { href: `#/${name}`, "data-view": name }, view.title))));
  part("menu").addEventListener("click", () => menu(part("menu").getAttribute("aria-expanded") !== "true"));
  part("skip").addEventListener("click", (/** @type {Event} */ event) => { event.preventDefault(); part("title").focus(); });
  addEventListener("hashchange", () => route());
  on("connection", () => {
    banners();
    if (state.connection === "offline" && !updating.restarting()) announce("The device is not reachable; trying again.");
  });
  on("back", () => announce("The device is reachable again."));
  on("system", () => { showName(); banners(); });
  on("ota", banners);
  on("restart", banners);
  updating.begin();
  events.follow();
  for (const name of ["online", "offline"]) addEventListener(name, pulse);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) pulse(); });
  on("back", () => { if (failed) route(true); });
  pulse().then(() => route(true));
}

start();
