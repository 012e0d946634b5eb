// Settings: name, account, how the page is served, and every variable that there is.

import { send, said } from "./device.js";
import { action, card, field, form, h, input, select } from "./dom.js";
import { accountForm } from "./account.js";
import { facts, line } from "./words.js";

export const title = "Settings";
/** What the device shows of a secret that is set. */
const MASK = "********";

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal }) {
  const found = facts((await send("get all", { signal })).text);
  root.append(nameCard(found), card("Account", h("p", {}, found["http.server.username"] && found["http.server.password"]
    ? "Who may command this device by HTTP. A changed account ends terminals that are open, and the browser asks anew."
    : "Nobody has set a password: everybody in this network can command this device."), accountForm(found["http.server.username"])), serverCard(found), variables(found));
}

/** @param {Record<string, string>} values names and what they become */
async function keep(values) {
  for (const [name, value] of Object.entries(values)) await send(line("set", name, value));
  return said(await send("save")) || "Saved.";
}

/** @param {Record<string, string>} found */
function nameCard(found) {
  return card("Name", form([field("Name of this device", input("name", { value: found["system.name"] ?? "", maxlength: 64 }), "For people; it changes no address.")],
    "Save", ({ name }) => keep({ "system.name": name })));
}

/** @param {Record<string, string>} found */
function serverCard(found) {
  return card("Web server", form([
    field("Names of the device", input("hostname", { value: found["http.server.hostname"] ?? "", maxlength: 300 }), "Names that browsers reach it by, besides its addresses; separated by blanks."),
    field("Encryption (HTTPS)", select("tls", [["0", "off: the password travels readably"], ["1", "on: the browser asks once about the device's certificate"]], found["http.server.tls_enabled"]),
      "When it is changed this page is found under https:// or http:// instead. The serial console can always change it back."),
    field("Command line over TCP", select("terminal", [["0", "off"], ["1", "on, not encrypted; it needs an account"]], found["remote_terminal.enabled"])),
    field("SSH", select("ssh", [["1", "on, with keys only"], ["0", "off"]], found["ssh.enabled"])),
  ], "Save", ({ hostname, tls, terminal, ssh }) => keep({
    "http.server.hostname": hostname, "remote_terminal.enabled": terminal, "ssh.enabled": ssh, "http.server.tls_enabled": tls,
  })));
}

/** @param {Record<string, string>} found */
function variables(found) {
  const names = Object.keys(found);
  const shown = h("div");
  const filter = input("filter", { type: "search" });
  const value = input("value", { maxlength: 1800 });
  const choice = select("name", names.map((name) => [name, name]));
  const about = h("p", { class: "quiet", role: "status" });
  const fill = () => { value.value = found[choice.value] === MASK ? "" : found[choice.value] ?? ""; };
  const pick = async () => {
    fill();
    about.textContent = "";
    try {
      about.textContent = (await send(line("help", choice.value))).text.trim();
    } catch { /* it can be set without an explanation */ }
  };
  choice.addEventListener("change", pick);
  fill();
  const draw = () => shown.replaceChildren(h("dl", { class: "mono" }, names.filter((name) => name.includes(filter.value.trim().toLowerCase()))
    .flatMap((name) => [h("dt", {}, name), h("dd", {}, found[name] || "–")])));
  filter.addEventListener("input", draw);
  draw();
  const save = action("Save all for the next start", async () => said(await send("save")) || "Saved.");
  return card("All variables", h("p", { class: "quiet" }, "What is set holds until the next start; saving keeps it. Some take effect at the next start or with a command only."),
    form([field("Variable", choice), about, field("Value", value)], "Set", async ({ name, value: wanted }) => {
      if (!wanted && found[name] === MASK) throw new Error(`${name} is set, and never shown; type the new value.`);
      await send(line("set", name, wanted));
      found[name] = (await send(line("get", name))).text.trim();
      draw();
      return `${name} is set; it is not saved yet.`;
    }, { more: [save.button] }), save.result,
    h("details", {}, h("summary", {}, "Show all"), field("Only names with", filter), shown));
}
