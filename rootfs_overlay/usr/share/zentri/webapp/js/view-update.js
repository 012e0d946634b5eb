// Update: look for one, install it, follow it, take it back; from the server or from any address.

import { send, said } from "./device.js";
import { action, ask, card, field, form, h, input, list, result, select } from "./dom.js";
import { on, state } from "./state.js";
import * as updating from "./updating.js";
import { facts, line, release, size } from "./words.js";
import { lastOutcome } from "./view-status.js";

export const title = "Update";

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal }) {
  const told = result();
  root.append(lastOutcome(signal), progressCard(signal, told), sources(told), uploading());
  const policy = h("div");
  root.append(policy);
  await updating.look();
  const found = facts((await send("get dms", { signal })).text);
  policy.replaceChildren(policyCard(found));
}

/** @param {AbortSignal} signal @param {import("./dom.js").Result} told */
function progressCard(signal, told) {
  const words = h("p", { id: "update-state" });
  const bar = h("progress", { max: 100, "aria-labelledby": "update-state" });
  const about = h("div");
  const cancel = action("Cancel the update", async () => said(await send("ota cancel")) || "The update is being cancelled.");
  const back = action("Take it back", async () => {
    const yes = await ask("Take the installed release back?", ["The release that runs stays. The new one is not started."], "Take it back");
    if (!yes) return null;
    const text = said(await send("ota cancel"));
    await updating.look();
    return text;
  });
  const restart = action("Restart now", async () => {
    const yes = await ask("Restart into the new release?", ["The device is away for about a minute. If the new release does not work, the device goes back to this one by itself."], "Restart", { kind: "main" });
    return yes ? updating.restart() : null;
  }, { kind: "main" });
  const draw = () => {
    const phase = updating.phase();
    const now = updating.running();
    const state1 = /** @type {any} */ (updating.WORDS)[phase] ?? phase;
    words.textContent = now && phase === "idle" ? "Starting …" : now ? `${state1}: ${updating.percent()} %, ${size(Number(state.ota["ota.bytes"]) || 0)} received` : `${state1}.`;
    bar.hidden = !now;
    bar.value = updating.percent();
    cancel.button.hidden = !now;
    back.button.hidden = restart.button.hidden = !updating.installed();
    about.replaceChildren(list([
      ["Runs now", release(state.system["system.version"]).version || "–"],
      ["Found, not installed", state.ota["ota.available"] || "none"],
    ]));
  };
  on("ota", draw, signal);
  on("system", draw, signal);
  draw();
  return card("Now", about, words, bar, h("div", { class: "row" }, restart.button, back.button, cancel.button), cancel.result, back.result, restart.result, told.element);
}

/** What is told when `ota` has ended. @param {Promise<string>} asked */
async function ended(asked) {
  const text = await asked;
  if (/Rebooting\s*$/.test(text)) {
    updating.expect(true);
    return `${text}. The page waits for the device and then tells what runs.`;
  }
  return text || "There is nothing to update.";
}

/** @param {import("./dom.js").Result} told */
function sources(told) {
  const check = action("Look for an update", () => updating.install("-c"), { told });
  const install = action("Install the newest", async () => {
    const manual = state.ota["ota.reboot"] === "manual";
    const yes = await ask("Install the newest release?", [manual ? "It is downloaded and checked now, and starts when you restart the device."
      : "It is downloaded and checked, and then the device restarts into it. If it does not work, the device goes back by itself."], "Install", { kind: "main" });
    return yes ? ended(updating.install()) : null;
  }, { kind: "main", told });
  return h("div", {}, card("From the server", h("div", { class: "row" }, check.button, install.button),
    h("details", {}, h("summary", {}, "A certain version"),
      form([field("Version", input("version", { required: true, maxlength: 40 }), "such as 1.4.0"), field("install it even if it runs already", input("force", { type: "checkbox" }))],
        "Install this version", ({ version, force }) => ended(updating.install(...(force ? ["-f"] : []), "-b", version))))),
  card("From a web server or a file", h("p", {}, "A bundle (.zb) on any web server, or a file on the device. It is checked like one from the server: a bundle that was not signed for this device is refused."),
    form([field("Address or path", input("source", { required: true, maxlength: 1800, inputmode: "url" }), "such as http://192.168.1.5:8000/new.zb or /data/new.zb; an address may hold user name and password")],
      "Install from there", async ({ source }) => {
        const yes = await ask("Install from there?", [h("p", { class: "mono" }, source.replace(/\/\/[^/]*@/, "//…@"))], "Install", { kind: "main" });
        return yes ? ended(updating.install("-u", source)) : null;
      })));
}

function uploading() {
  return card("Sending a bundle from this computer", h("p", {}, "A page may not send to the door that takes bundles, so this needs a program:"),
    h("ol", {}, h("li", {}, "In the ", h("a", { href: "#/terminal" }, "terminal"), " type ", h("code", {}, "ota upload"), "."),
      h("li", {}, "It prints a line that begins with ", h("code", {}, "curl"), ". Carry it out on your computer, with your file's name, within ten minutes."),
      h("li", {}, "Leave the terminal open until the installation has ended; Ctrl-C there closes the door.")));
}

/** @param {Record<string, string>} dms */
function policyCard(dms) {
  return card("By itself", form([
    field("Updates from the server", select("auto", [["off", "only when a person asks"], ["check", "look for them, tell, do not install"], ["install", "install them"]], dms["dms.auto"])),
    field("When", input("window", { value: dms["dms.window"] ?? "", maxlength: 200 }), "UTC, such as mon-fri 22:00-04:00; sat,sun 01:00-05:00. Empty: at any time."),
    field("Restart into a new release", select("reboot", [["auto", "by itself"], ["manual", "only when a person restarts the device"]], state.ota["ota.reboot"])),
  ], "Save", async ({ auto, window, reboot }) => {
    await send(line("set", "dms.window", window));
    await send(line("set", "dms.auto", auto));
    await send(line("set", "ota.reboot", reboot));
    await send("save");
    await updating.look();
    return "Saved.";
  }));
}
