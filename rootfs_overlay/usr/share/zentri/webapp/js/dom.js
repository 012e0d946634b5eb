// Building pages: elements whose texts are texts, forms that say what became of them, questions, tables.

/** @typedef {Node|string|null|undefined|false} Part */

/**
 * An element. Texts become text nodes, never markup; `onclick` and the like are listeners, not attributes.
 * @param {string} tag
 * @param {Record<string, any>} [props]
 * @param {...(Part|Part[])} parts
 * @returns {any}
 */
export function h(tag, props = {}, ...parts) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(.../** @type {any[]} */ (parts.flat().filter((part) => part || part === "")));
  return made;
}

/** @param {string} id @returns {any} */
export const part = (id) => document.getElementById(id);

let numbers = 0;

/** Say something to those who do not see it. @param {string} text */
export function announce(text) {
  part("live").textContent = "";
  requestAnimationFrame(() => { part("live").textContent = text; });
}

/** @param {string} title @param {...(Part|Part[])} parts */
export function card(title, ...parts) {
  const id = `card-${++numbers}`;
  return h("section", { class: "card", "aria-labelledby": id }, h("h2", { id }, title), ...parts);
}

/** @param {[string, Part|Part[]][]} pairs */
export const list = (pairs) => h("dl", {}, pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

/**
 * Show these, and touch nothing that is so already: what has the focus keeps it, and what was told is not told again.
 * @param {HTMLElement} place
 * @param {Element[]} parts
 */
export function refresh(place, parts) {
  const shown = [...place.children];
  if (shown.length !== parts.length) place.replaceChildren(...parts);
  else parts.forEach((one, at) => { if (!one.isEqualNode(shown[at])) shown[at].replaceWith(one); });
}

/** @param {string} kind `good`, `warn`, `bad` @param {...(Part|Part[])} parts */
export const notice = (kind, ...parts) => h("div", { class: `notice ${kind}` }, ...parts);

/**
 * A labelled control.
 * @param {string} label
 * @param {any} control
 * @param {Part} [hint]
 */
export function field(label, control, hint) {
  control.id ||= `field-${++numbers}`;
  if (control.type === "checkbox") return h("div", { class: "check" }, control, h("label", { for: control.id }, label, hint && h("span", { class: "quiet" }, " ", hint)));
  const described = hint ? h("p", { class: "hint", id: `${control.id}-hint` }, hint) : null;
  if (described) control.setAttribute("aria-describedby", described.id);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, described);
}

/**
 * @param {string} name
 * @param {Record<string, any>} [props]
 */
export const input = (name, props = {}) => {
  return h("input", { name, autocomplete: "off", autocapitalize: "off", spellcheck: "false", ...props });
};

/** @param {string} name @param {[string, string][]} options value and text @param {string} [chosen] @param {Record<string, any>} [props] */
export function select(name, options, chosen, props = {}) {
  const known = options.some(([value]) => value === chosen) || !chosen ? options : [...options, /** @type {[string, string]} */ ([chosen, chosen])];
  const made = h("select", { name, ...props }, known.map(([value, text]) => h("option", { value }, text)));
  if (chosen !== undefined) made.value = chosen;
  return made;
}

/** A line that tells what became of an action. */
export function result() {
  const made = h("p", { class: "result", role: "status" });
  return {
    element: made,
    /** @param {string} text @param {string} [kind] */
    show(text, kind = "") {
      if (made.textContent === text && made.className.trim() === `result ${kind}`.trim()) return;  // told already
      made.className = `result ${kind}`;
      made.textContent = text;
    },
    /** @param {unknown} error */
    fail(error) {
      this.show(error instanceof Error ? error.message : String(error), "bad");
    },
  };
}

/** @typedef {ReturnType<typeof result>} Result */

/**
 * Work behind a button: not twice at a time, and its end is told.
 * @param {any} button
 * @param {Result} told
 * @param {() => Promise<string|void|null>} work null: nothing is to be told
 */
export async function busy(button, told, work) {
  if (button.getAttribute("aria-disabled") === "true") return;
  button.setAttribute("aria-disabled", "true");
  told.show("Working …");
  try {
    const text = await work();
    told.show(text === null ? "" : text || "Done.", "good");
  } catch (error) {
    told.fail(error);
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

/**
 * A form that carries something out.
 * @param {Part[]} fields
 * @param {string} label of the button
 * @param {(values: Record<string, string>, form: any) => Promise<string|void|null>} work
 * @param {{kind?: string, more?: Part[]}} [how]
 */
export function form(fields, label, work, { kind = "main", more = [] } = {}) {
  const button = h("button", { class: kind }, label);
  const told = result();
  const made = h("form", {
    onsubmit: (/** @type {Event} */ event) => {
      event.preventDefault();
      const values = Object.fromEntries([...new FormData(made)].map(([name, value]) => [name, String(value)]));
      busy(button, told, () => work(values, made));
    },
  }, fields, h("div", { class: "row" }, button, ...more), told.element);
  return made;
}

/**
 * A button that carries something out.
 * @param {string} label
 * @param {() => Promise<string|void|null>} work
 * @param {{kind?: string, name?: string, told?: Result}} [how] `name`: what it is called where the label is not enough
 */
export function action(label, work, { kind = "", name, told = result() } = {}) {
  const button = h("button", { type: "button", class: kind, "aria-label": name, onclick: () => busy(button, told, work) }, label);
  return { button, result: told.element };
}

/**
 * Ask before something that cannot be undone.
 * @param {string} title
 * @param {Part[]} text
 * @param {string} label of the button that does it
 * @param {{typed?: string, kind?: string}} [how] `typed`: the label of a field that must be filled
 * @returns {Promise<string|null>} what was typed, or "yes"; null: no
 */
export function ask(title, text, label, { typed, kind = "bad" } = {}) {
  return new Promise((resolve) => {
    const id = `ask-${++numbers}`;
    const word = typed ? input("typed", { required: true }) : null;
    const dialog = h("dialog", { "aria-labelledby": id }, h("h2", { id }, title), text.map((one) => (typeof one === "string" ? h("p", {}, one) : one)));
    const end = (/** @type {string|null} */ answer) => { resolve(answer); dialog.close(); };
    dialog.append(h("form", {
      onsubmit: (/** @type {Event} */ event) => { event.preventDefault(); end(word ? word.value.trim() : "yes"); },
    }, word && field(/** @type {string} */ (typed), word), h("div", { class: "row" },
      h("button", { type: "button", onclick: () => end(null) }, "Cancel"), h("button", { class: kind }, label))));
    dialog.addEventListener("close", () => { dialog.remove(); resolve(null); });
    document.body.append(dialog);
    dialog.showModal();
  });
}

/**
 * A table; on a phone each row is a card, whose layout would hide from a screen reader that it is a table but for the roles.
 * @param {string} caption
 * @param {string[]} heads
 * @param {Part[][]} lines the first cell is the row's head
 */
export function table(caption, heads, lines) {
  return h("div", { class: "scroll" }, h("table", { class: "stack", role: "table" }, h("caption", {}, caption),
    h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, heads.map((head) => h("th", { scope: "col", role: "columnheader" }, head || h("span", { class: "unseen" }, "Actions"))))),
    h("tbody", { role: "rowgroup" }, lines.map((cells) => h("tr", { role: "row" }, cells.map((cell, at) => (at
      ? h("td", { role: "cell", "data-label": heads[at] }, cell) : h("th", { scope: "row", role: "rowheader" }, cell))))))));
}

/**
 * Do something now and then, while the page is looked at.
 * @param {number} ms
 * @param {() => Promise<unknown>} work
 * @param {AbortSignal} signal
 */
export async function every(ms, work, signal) {
  while (!signal.aborted) {
    if (!document.hidden) await work().catch(() => undefined);
    await new Promise((resolve) => {
      const end = () => { clearTimeout(timer); signal.removeEventListener("abort", end); resolve(null); };
      const timer = setTimeout(end, ms);
      signal.addEventListener("abort", end);
    });
  }
}
