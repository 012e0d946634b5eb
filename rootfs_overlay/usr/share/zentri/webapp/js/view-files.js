// Files: list, send, fetch, edit, delete.

import { DeviceError, send } from "./device.js";
import { crc16, hex4 } from "./bytes.js";
import { action, announce, ask, card, field, h, input, result, table } from "./dom.js";
import { asText, fromText } from "./text.js";
import { MAX_FILE_BYTES, download, stat, upload } from "./transfer.js";
import { line, rows, size } from "./words.js";

export const title = "Files";
const ESSENTIAL = 0x10;
const USER = 0x20;

/** @typedef {{name: string, size: string, version: string, type: string, flags: string}} Listed */
/** @typedef {{root: HTMLElement, list: any, work: any, told: import("./dom.js").Result, signal: AbortSignal, files: Listed[], look: () => Promise<void>}} Here */

/** @type {{dirty: () => boolean}|null} what is being edited */
let editor = null;
/** What is sent, whichever page is shown meanwhile, and what became of it. */
const going = h("div");
let unsent = 0;
let sending = Promise.resolve();
/** The list as it is shown now. */
let look = async () => {};

/** Before another view is shown. */
export async function leave() {
  if (editor?.dirty() && !(await ask("Leave without saving?", ["What you have changed in the text is lost."], "Leave"))) return false;
  editor = null;
  return true;
}

addEventListener("beforeunload", (event) => { if (editor?.dirty() || unsent) event.preventDefault(); });

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal }) {
  const here = /** @type {Here} */ ({ root, signal, list: h("div", { tabindex: "-1", role: "group", "aria-label": "List of files" }), work: h("div"), told: result(), files: [] });
  here.look = async () => {
    const found = await send("ls -v", { signal });
    here.files = /** @type {any} */ (rows(found.text));
    const focused = here.list.contains(document.activeElement);
    here.list.replaceChildren(fileTable(here));
    if (focused) here.list.focus();  // what had it is gone
  };
  look = here.look;
  signal.addEventListener("abort", () => going.querySelectorAll("[data-ended]").forEach((row) => row.remove()));
  root.append(here.work, card("Send a file", uploadForm()), card("Files on the device", here.list, here.told.element));
  await here.look();
}

/** @param {Here} here */
function fileTable(here) {
  if (!here.files.length) return h("p", {}, "There are no files.");
  const sum = here.files.reduce((all, file) => all + Number(file.size), 0);
  const open = new Set([...here.list.querySelectorAll("details[open]")].map((one) => one.dataset.folder));
  /** @type {Map<string, Listed[]>} */
  const folders = new Map([["", []]]);
  for (const file of here.files) {
    const folder = file.name.includes("/") ? file.name.slice(0, file.name.indexOf("/")) : "";
    folders.set(folder, [...(folders.get(folder) ?? []), file]);
  }
  return h("div", {}, h("p", { class: "quiet" }, `${here.files.length} of at most 512 files, ${size(sum)} of at most 64 MiB`), [...folders].map(([folder, files]) => {
    if (!files.length) return null;
    const shown = table(folder ? `In the folder ${folder}` : "In no folder", ["Name", "Size", "Version", "Type", "Flags", ""], files.map((file) => fileRow(here, file)));
    return folder ? h("details", { "data-folder": folder, open: files.length < 6 || open.has(folder) }, h("summary", {}, `${folder}/ (${files.length})`), shown) : shown;
  }));
}

/** @param {Here} here @param {Listed} file */
function fileRow(here, file) {
  const flags = parseInt(file.flags, 16);
  const words = [flags & ESSENTIAL ? "essential" : "", flags & USER ? "user" : ""].filter(Boolean).join(", ");
  const one = (/** @type {string} */ label, /** @type {() => Promise<string|void|null>} */ work, kind = "") =>
    action(label, work, { kind, name: `${label} ${file.name}`, told: here.told }).button;
  return [h("span", { class: "mono" }, file.name), size(Number(file.size)), file.version, h("span", { class: "mono" }, file.type), words || "–",
    h("div", { class: "row" }, one("Download", () => fetchFile(here, file.name)), one("Edit", () => edit(here, file.name)), one("Delete", () => remove(here, file.name, flags), "bad"))];
}

/** @param {Here} here @param {string} name */
async function fetchFile(here, name) {
  const bytes = await download(await stat(name, here.signal), {
    signal: here.signal, progress: (done, all) => here.told.show(`Downloading ${name}: ${all ? Math.floor((done * 4) / all) * 25 : 100} %`),
  });
  const address = URL.createObjectURL(new Blob([/** @type {any} */ (bytes)]));
  h("a", { href: address, download: name.split("/").at(-1) }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
  return `${name}: ${size(bytes.length)} downloaded, checksum right.`;
}

/** @param {Here} here @param {string} name @param {number} flags */
async function remove(here, name, flags) {
  const essential = flags & ESSENTIAL ? ["It is marked as essential: something depends on it."] : [];
  if (!(await ask(`Delete ${name}?`, [...essential, "It cannot be brought back."], "Delete"))) return null;
  await send(line("file_delete", ...(essential.length ? ["-f"] : []), name));
  await here.look();
  return `${name} is deleted.`;
}

function uploadForm() {
  const picker = input("file", { type: "file", multiple: true });
  const folder = input("folder", { maxlength: 100, pattern: "[A-Za-z0-9._+@=~\\/-]*" });
  const take = (/** @type {Iterable<File>} */ found) => queue([...found], folder.value);
  picker.addEventListener("change", () => { take([...picker.files]); picker.value = ""; });
  const drop = h("div", {
    class: "drop",
    ondragover: (/** @type {DragEvent} */ event) => { event.preventDefault(); drop.classList.add("over"); },
    ondragleave: () => drop.classList.remove("over"),
    ondrop: (/** @type {DragEvent} */ event) => { event.preventDefault(); drop.classList.remove("over"); take(event.dataTransfer?.files ?? []); },
  }, field("Choose files, or drop them here", picker));
  return h("div", {}, field("Folder on the device", folder, "such as webapp; empty: none"), drop, going);
}

/** One after the other. @param {File[]} found @param {string} folder */
function queue(found, folder) {
  for (const file of found) {
    const prefix = folder.trim().replace(/^\/+|\/+$/g, "");
    const name = `${prefix ? `${prefix}/` : ""}${file.name}`;
    const row = sendRow(name);
    going.append(row.element);
    unsent++;
    sending = sending.then(() => sendOne(file, name, row)).catch(() => undefined).finally(() => { unsent--; });
  }
}

/** @param {string} name */
function sendRow(name) {
  const stop = new AbortController();
  const bar = h("progress", { max: 100, value: 0, "aria-label": `Sending ${name}` });
  const told = result();
  const now = h("p", {}, `${name}: waits`);  // told to nobody at each piece
  const cancel = h("button", { type: "button", "aria-label": `Cancel sending ${name}`, onclick: () => stop.abort() }, "Cancel");
  const element = h("div", { tabindex: "-1" }, now, told.element, bar, h("div", { class: "row" }, cancel));
  return { element, now, bar, cancel, told, signal: stop.signal };
}

/** @param {File} file @param {string} name @param {ReturnType<typeof sendRow>} row */
async function sendOne(file, name, row) {
  /** @type {Uint8Array|null} what is on its way */
  let bytes = null;
  const end = (/** @type {string} */ text, /** @type {string} */ kind) => {
    row.told.show(`${name}: ${text}`, kind);
    if (!going.isConnected) announce(`${name}: ${text}`);
  };
  try {
    if (file.size > MAX_FILE_BYTES) throw new DeviceError("it is larger than 32 MiB, the most that the device keeps as one file.");
    row.signal.throwIfAborted();
    // Asked now: since the list was read somebody may have put a file there.
    const old = await known(name, row.signal);
    if (old && !(await ask(`Replace ${name}?`, ["There is a file of this name on the device."], "Replace"))) throw new DeviceError("not sent.");
    bytes = new Uint8Array(await file.arrayBuffer());
    await upload(name, bytes, old ?? {}, { signal: row.signal, progress: (done, all) => {
      row.bar.value = all ? (done * 100) / all : 100;
      row.now.textContent = `${name}: ${size(done)} of ${size(all)}`;
    } });
    end(`${size(bytes.length)} sent, checksum right.`, "good");
  } catch (error) {
    end(row.signal.aborted ? await cancelled(name, bytes) : `${/** @type {Error} */ (error).message}`, "bad");
  } finally {
    const focused = document.activeElement === row.cancel;
    for (const one of [row.now, row.bar, row.cancel]) one.remove();
    row.element.setAttribute("data-ended", "");
    if (focused) row.element.focus();
    await look().catch(() => undefined);
  }
}

/** A file of the device; null: there is none. @param {string} name @param {AbortSignal} [signal] */
async function known(name, signal) {
  try {
    return await stat(name, signal);
  } catch (error) {
    if (/** @type {any} */ (error).code) return null;
    throw error;
  }
}

/** What cancelling has come to: the last piece may have been on its way. @param {string} name @param {Uint8Array|null} bytes */
async function cancelled(name, bytes) {
  try {
    const there = bytes && await known(name);
    return there && there.size === bytes?.length && there.crc === hex4(crc16(bytes)) ? "cancelled too late; the whole file is on the device."
      : "cancelled; nothing on the device has changed.";
  } catch {
    return "cancelled; whether all of it had arrived is not known. Look at the list when the device is back.";
  }
}

/** @param {Here} here @param {string} name */
async function edit(here, name) {
  if (!(await leave())) return null;
  here.work.replaceChildren();  // nobody would ask about what is typed there from now on
  const about = await stat(name, here.signal);
  const bytes = await download(about, { signal: here.signal });
  const { text, ends } = asText(bytes);
  open(here, about, text, ends, crc16(bytes));
  return null;
}

/** The checksum of what a file holds now, whatever the device noted when it was created; null: it is gone or damaged. @param {string} name */
async function contentNow(name) {
  try {
    return crc16(await download(await stat(name)));
  } catch (error) {
    const { lost, status } = /** @type {any} */ (error);
    if (lost || status) throw error;
    return null;
  }
}

/** @param {Here} here @param {import("./transfer.js").Stat} about @param {string} text @param {string} ends @param {number} crc of what was opened */
function open(here, about, text, ends, crc) {
  let kept = text;
  const told = result();
  const area = h("textarea", { class: "editor mono", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off" });
  area.value = text;
  editor = { dirty: () => area.value !== kept };
  const close = () => { editor = null; here.work.replaceChildren(); here.list.focus(); };
  const save = action("Save", async () => {
    const value = area.value;
    if ((await contentNow(about.name)) !== crc && !(await ask("Save over it?", ["The file on the device has changed, or is gone, since you opened it."], "Save over it"))) return null;
    const bytes = fromText(value, ends);
    await upload(about.name, bytes, about);
    kept = value;
    crc = crc16(bytes);
    await here.look();
    return `Saved. ${about.name} is on the device as you see it.`;
  }, { kind: "main", told });
  const stop = h("button", { type: "button", onclick: async () => { if (await leave()) close(); } }, "Close");
  here.work.replaceChildren(card(`Edit ${about.name}`, field("Text", area, ends === "\n" ? "The Tab key leaves the field." : "Line ends stay CR LF. The Tab key leaves the field."),
    h("div", { class: "row" }, save.button, stop), told.element));
  area.focus();
  area.setSelectionRange(0, 0);
  announce(`${about.name} is open for editing.`);
}
