// The command language in text: words, answers, tables, sizes. Pure.

/**
 * A word as the command line reads it back as one word.
 * @param {string} word
 * @returns {string}
 */
export function quote(word) {
  if (word && !/[ "\\\t\r\n]/.test(word)) return word;
  return `"${word.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}

/**
 * A command line made of words; each is quoted.
 * @param {...(string|number)} words
 * @returns {string}
 */
export const line = (...words) => words.map((word) => quote(String(word))).join(" ");

/**
 * Lines `name: value` as an object without a prototype, so that no name means anything else.
 * @param {string} text
 * @returns {Record<string, string>}
 */
export function facts(text) {
  const found = Object.create(null);
  for (const one of text.split(/\r?\n/)) {
    const at = one.indexOf(":");
    if (at > 0) found[one.slice(0, at)] = one.slice(at + 1).trim();
  }
  return found;
}

/**
 * A table as the device prints it: the header begins with `#`, two blanks or more between the columns.
 * @param {string} text
 * @returns {Record<string, string>[]}
 */
export function rows(text) {
  const cut = (/** @type {string} */ one) => one.trim().split(/\s{2,}/);
  const [head, ...body] = text.split(/\r?\n/).filter((one) => one.trim());
  if (!head?.startsWith("#")) return [];
  const names = cut(head.slice(1));
  return body.map((one) => {
    const cells = cut(one);
    const found = Object.create(null);
    names.forEach((name, at) => { found[name] = cells[at] ?? ""; });
    return found;
  });
}

/**
 * Product and version of the device's version line.
 * @param {string} text `PRODUCT-1.2.3, built, Zentri-…, Board:…`
 */
export function release(text) {
  const [bundle = "", built = "", zentri = "", board = ""] = (text || "").split(", ");
  const at = bundle.lastIndexOf("_") < 0 ? bundle.indexOf("-") : bundle.indexOf("-", bundle.lastIndexOf("_"));
  return {
    product: at < 0 ? bundle : bundle.slice(0, at), version: at < 0 ? "" : bundle.slice(at + 1),
    built, zentri: zentri.replace(/^Zentri-/, ""), board: board.replace(/^Board:/, ""),
  };
}

/** @param {number} bytes */
export function size(bytes) {
  if (!(bytes >= 0)) return "not known";
  if (bytes < 1024) return `${bytes} bytes`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(1)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

/** @param {number} seconds */
export function duration(seconds) {
  if (!(seconds >= 0)) return "not known";
  const parts = [[Math.floor(seconds / 86400), "d"], [Math.floor(seconds / 3600) % 24, "h"], [Math.floor(seconds / 60) % 60, "min"]]
    .filter(([count]) => count).map(([count, unit]) => `${count} ${unit}`);
  return parts.slice(0, 2).join(" ") || `${Math.floor(seconds)} s`;
}

/** @param {string} text */
export const isAddress = (text) => /^(\d{1,3}\.){3}\d{1,3}$/.test(text) && text.split(".").every((part) => Number(part) < 256);
