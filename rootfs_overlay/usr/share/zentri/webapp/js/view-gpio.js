// GPIOs: what each is, and driving those that are outputs.

import { send } from "./device.js";
import { busy, every, h, notice, result, select, table } from "./dom.js";
import { inSafeMode, on } from "./state.js";
import { rows } from "./words.js";

export const title = "GPIO";
const LOOK_MS = 2000;
const BUTTON = "0";
const LAMP = "1";

/** @param {import("./app.js").Shown} shown */
export async function show({ root, signal }) {
  if (inSafeMode()) {
    root.append(notice("warn", h("p", {}, "Not available in safe mode: what is connected to the GPIOs belongs to your application, which does not run now. Leave safe mode first.")));
    on("system", () => { if (!inSafeMode()) { root.replaceChildren(); start(root, signal); } }, signal);
    return;
  }
  start(root, signal);
}

/** @param {HTMLElement} root @param {AbortSignal} signal */
function start(root, signal) {
  const told = result();
  const place = h("div");
  root.append(h("section", { class: "card", "aria-label": "All GPIOs" }, place, told.element),
    h("p", { class: "quiet" }, "GPIO 0 is the factory reset button: it is read and never driven; held for 10 seconds it resets the device. GPIO 1 is the lamp. What is set here holds until the next start; the variables gpio.init.0 to gpio.init.7 on the page Settings say what a GPIO begins as."));
  /** @type {Map<string, (row: Record<string, string>) => void>} */
  let draw = new Map();
  const look = async () => {
    let found;
    try {
      found = rows((await send("gpios_get", { signal })).text);
    } catch (error) {
      if (!signal.aborted && !draw.size) told.fail(error);
      throw error;
    }
    if (draw.size !== found.length) {
      draw = new Map();
      const lines = found.map((row) => gpioRow(row, draw, told, look));
      place.replaceChildren(table("Levels are read every two seconds", ["GPIO", "Function", "Direction", "Level", ""], lines));
    }
    for (const row of found) draw.get(row.gpio)?.(row);
  };
  every(LOOK_MS, look, signal);
}

/**
 * @param {Record<string, string>} row
 * @param {Map<string, (row: Record<string, string>) => void>} draw
 * @param {import("./dom.js").Result} told
 * @param {() => Promise<void>} look
 */
function gpioRow(row, draw, told, look) {
  const number = row.gpio;
  const level = h("span", { class: "badge" });
  const held = row.level === "-";
  const choice = select(`direction-${number}`, number === LAMP ? [["out", "output"]] : [["in", "input"], ["out", "output"]], row.direction, {
    "aria-label": `Direction of GPIO ${number}`, disabled: held || number === LAMP || number === BUTTON,
    onchange: () => busy(choice, told, async () => {
      try {
        const answer = await send(`gpio_dir ${number} ${choice.value}`);
        return [...answer.log, `GPIO ${number} is an ${choice.value === "in" ? "input" : "output"} now.`].join("\n");
      } finally {
        await look();
      }
    }),
  });
  const toggle = h("button", { type: "button", onclick: () => busy(toggle, told, async () => {
    const wanted = level.textContent === "high" ? "0" : "1";
    await send(`gpio_set ${number} ${wanted}`);
    await look();
    return `GPIO ${number} is ${wanted === "1" ? "high" : "low"} now.`;
  }) });
  draw.set(number, (now) => {
    const high = now.level === "1";
    level.textContent = now.level === "-" ? "not readable" : high ? "high" : "low";
    level.className = `badge ${high ? "good" : ""}`;
    if (document.activeElement !== choice || choice.getAttribute("aria-disabled") !== "true") choice.value = now.direction;
    toggle.textContent = high ? "Set low" : "Set high";
    toggle.setAttribute("aria-label", `Set GPIO ${number} ${high ? "low" : "high"}`);
    toggle.hidden = now.direction !== "out" || now.level === "-" || number === BUTTON;
  });
  return [number, row.function === "-" ? "free" : row.function, choice, level, toggle];
}
