// Network: how the device is reached, and changing that without losing it.

import { send, said } from "./device.js";
import { action, card, field, form, h, input, list, notice, select } from "./dom.js";
import { on, state } from "./state.js";
import { facts, isAddress, line } from "./words.js";

export const title = "Network";
const RESTART_MS = 75_000;
const CONFIRM_S = 60;
const SETTINGS = ["network.default_interface", "network.dhcp", "network.static.ip", "network.static.netmask", "network.static.gateway", "network.static.dns"];

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal, rest }) {
  const now = h("div");
  const change = h("div");
  if (rest === "confirm") root.append(confirmCard());
  root.append(now, change, probes());
  /** @type {Record<string, string>} */
  let found = {};
  const look = async () => {
    found = facts(`${(await send("get network", { signal })).text}\n${(await send("get wlan", { signal })).text}`);
    now.replaceChildren(card("Now", list([
      ["Status", found["network.status"] === "up" ? h("span", { class: "badge good" }, "up") : found["network.status"]],
      ["Address", found["network.ip"] || "–"], ["Network mask", found["network.netmask"] || "–"], ["Gateway", found["network.gateway"] || "–"],
      ["Name server", found["network.dns"] || "–"], ["MAC address", h("span", { class: "mono" }, found["network.mac"] || "–")],
    ])));
  };
  await look();
  change.replaceChildren(addressCard(() => found, look), wlanCard(found));
}

/** @type {AbortController|null} the last change, while it is not known what became of it */
let settled = null;

/** @param {() => Record<string, string>} known @param {() => Promise<void>} look */
function addressCard(known, look) {
  const found = known();
  const where = h("div");
  const fixed = h("fieldset", {}, h("legend", { class: "unseen" }, "Fixed address"), [
    ["ip", "Address", "", true], ["netmask", "Network mask", "such as 255.255.255.0", true],
    ["gateway", "Gateway", "Empty: the device reaches its own network only, and the address must be confirmed.", false],
    ["dns", "Name server", "Empty: none", false],
  ].map(([name, label, hint, required]) => field(String(label), input(String(name), {
    value: found[`network.static.${name}`] ?? "", required, pattern: "\\d{1,3}(\\.\\d{1,3}){3}", inputmode: "decimal", maxlength: 15,
  }), hint || undefined)));
  const how = select("dhcp", [["1", "from the network (DHCP)"], ["0", "a fixed one"]], found["network.dhcp"], { onchange: () => toggle() });
  const toggle = () => { fixed.hidden = fixed.disabled = how.value !== "0"; };
  toggle();
  return card("Address", h("p", { class: "quiet" }, "What does not come up is taken back by the device itself: the address before is in use again after at most a minute."),
    form([
      field("Interface", select("interface", [["ethernet", "Ethernet"], ["wlan", "radio (WLAN)"]], found["network.default_interface"])),
      field("How it gets its address", how), fixed,
    ], "Change the network", async (values) => {
      where.replaceChildren();
      const before = known();
      const wanted = {
        "network.default_interface": values.interface, "network.dhcp": values.dhcp,
        ...(values.dhcp === "0" && Object.fromEntries(["ip", "netmask", "gateway", "dns"].map((name) => [`network.static.${name}`, values[name].trim()]))),
      };
      await apply(wanted, before);
      return restartNetwork(values, before, where, look);
    }), where);
}

/** @param {Record<string, string>} wanted @param {Record<string, string>} before */
async function apply(wanted, before) {
  try {
    for (const [name, value] of Object.entries(wanted)) await send(line("set", name, value));
  } catch (error) {
    await takeBack(before);
    throw error;
  }
}

/** The variables as they were, so that a later `save` does not keep what did not work. @param {Record<string, string>} before */
async function takeBack(before) {
  for (const name of SETTINGS) await send(line("set", name, before[name] ?? "")).catch(() => undefined);
}

/**
 * @param {Record<string, string>} values @param {Record<string, string>} before @param {HTMLElement} where
 * @param {() => Promise<void>} look
 */
async function restartNetwork(values, before, where, look) {
  settled?.abort();
  const ip = values.dhcp === "0" ? values.ip.trim() : "";
  // Shown before the device goes away: afterwards nothing arrives here any more.
  if (ip && ip !== location.hostname) where.replaceChildren(leadTo(ip, values.gateway?.trim() === ""));
  let answer;
  try {
    answer = await send("network_restart", { timeoutMs: RESTART_MS });
  } catch (error) {
    if (!(/** @type {any} */ (error).lost)) {
      where.replaceChildren();
      await takeBack(before);
      await look().catch(() => undefined);
      throw error;
    }
    settled = new AbortController();
    const settle = () => { settled?.abort(); return settleDown(values, before, where, look); };
    if (state.connection === "online") return settle();
    // Also while another page is shown: what did not come up must not stay set, or the next `save` keeps it.
    on("back", () => settle().catch(() => undefined), settled.signal);
    where.replaceChildren(ip ? leadTo(ip, values.gateway?.trim() === "") : notice("warn", h("p", {},
      "The device has another address now, or the one before in a minute. A list of devices in your router, or the serial console (get network.ip), tells it; this page goes on by itself if the address stays.")));
    return null;
  }
  await look().catch(() => undefined);
  where.replaceChildren(keepCard(before, look, /network_verify/.test(answer.log.join(" "))));
  return said(answer);
}

/**
 * The device answers here again after its network was away: has the change come, or was it taken back?
 * @param {Record<string, string>} values @param {Record<string, string>} before @param {HTMLElement} where
 * @param {() => Promise<void>} look
 */
async function settleDown(values, before, where, look) {
  const now = facts((await send("get network")).text)["network.ip"];
  const come = values.dhcp === "0" ? now === values.ip.trim() : before["network.dhcp"] === "1" || now !== before["network.ip"];
  if (!come) await takeBack(before);
  await look();
  where.replaceChildren(come ? keepCard(before, look, values.gateway?.trim() === "")
    : notice("bad", h("p", {}, "The device is back at the address before: the change was taken back.")));
  return null;
}

/** @param {string} ip @param {boolean} unchecked */
function leadTo(ip, unchecked) {
  if (!isAddress(ip)) return notice("bad", h("p", {}, "That is no address."));
  const port = location.port ? `:${location.port}` : "";
  const to = `${location.protocol}//${ip}${port}/#/network/confirm`;
  return notice("warn", h("p", {}, h("strong", {}, "The device moves to another address. "), "Open it there and confirm it: ", h("a", { href: to }, to)),
    h("p", {}, unchecked ? `Without a gateway nothing checks this address: it is taken back unless it is confirmed within ${CONFIRM_S} seconds.`
      : "If the gateway does not answer there, the device comes back here by itself."),
    h("p", {}, "The change is not saved until you do that at the new address."));
}

/** @param {Record<string, string>} before @param {() => Promise<void>} look @param {boolean} unchecked */
function keepCard(before, look, unchecked) {
  const keep = action(unchecked ? "Confirm and save" : "Save for the next start", async () => {
    const checked = unchecked ? said(await send("network_verify", { timeoutMs: RESTART_MS })) : "";
    return [checked, ...(await send("save")).log, "Saved."].filter(Boolean).join("\n");
  }, { kind: "main" });
  const undo = action("Go back to the settings before", async () => {
    await takeBack(before);
    const text = said(await send("network_restart", { timeoutMs: RESTART_MS }));
    await look();
    return text;
  });
  return notice("good", h("p", {}, unchecked ? `The network is up. Nothing checks this address: confirm it within ${CONFIRM_S} seconds, or it is taken back.`
    : "The network is up with these settings. They are not saved yet."), h("div", { class: "row" }, keep.button, undo.button), keep.result, undo.result);
}

function confirmCard() {
  const keep = action("Confirm and save", async () => {
    const text = said(await send("network_verify", { timeoutMs: RESTART_MS }));
    await send("save");
    return `${text}\nConfirmed and saved.`;
  }, { kind: "main" });
  return card("The new address works", h("p", {}, "You see this page, so the device can be reached here. Confirm it to keep this address."), h("div", { class: "row" }, keep.button), keep.result);
}

/** @param {Record<string, string>} found */
function wlanCard(found) {
  return card("Radio network (WLAN)", h("p", { class: "quiet" }, "Used when the interface above is the radio; takes effect with “Change the network”, or at the next start. On a board without a radio its Ethernet stands for it."),
    form([
      field("Name of the network", input("ssid", { value: found["wlan.ssid"] ?? "", maxlength: 32 })),
      field("Password", input("password", { type: "password", maxlength: 64 }), found["wlan.password"] ? "One is set; it is never shown. Empty: leave it as it is." : "8 to 63 characters; empty for an open network."),
      field("open network: forget the password", input("none", { type: "checkbox" })),
    ], "Save", async ({ ssid, password, none }) => {
      await send(line("set", "wlan.ssid", ssid));
      if (password || none) await send(line("set", "wlan.password", none ? "" : password));
      return [...(await send("save")).log, "Saved."].join("\n");
    }));
}

function probes() {
  const verify = action("Check the network", async () => said(await send("network_verify", { timeoutMs: RESTART_MS })));
  return card("Look how far it reaches", h("div", { class: "row" }, verify.button), verify.result,
    h("h3", {}, "Ping"), form([field("Host", input("host", { maxlength: 253 }), "Empty: the gateway"), field("Times", input("times", { type: "number", min: 1, max: 20, value: 3, required: true }))],
      "Ping", async ({ host, times }) => said(await send(line("ping", "-n", times, ...(host ? ["--", host] : [])), { timeoutMs: RESTART_MS })), { kind: "" }),
    h("h3", {}, "Look up a name"), form([field("Name", input("name", { required: true, maxlength: 253 }))],
      "Look up", async ({ name }) => said(await send(line("nslookup", name), { timeoutMs: RESTART_MS })), { kind: "" }),
    state.connection === "offline" && h("p", {}, "The device is not reachable now."));
}
