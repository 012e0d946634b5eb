// Which files can be edited as text, and back without changing what was not edited. Pure.

const MAX_EDIT_BYTES = 256 * 1024;

/**
 * @param {Uint8Array} bytes
 * @returns {{text: string, ends: string}} with line ends as a text field has them; throws if it is no text
 */
export function asText(bytes) {
  if (bytes.length > MAX_EDIT_BYTES) throw new Error("The file is too large to be edited here; download it.");
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error("This is no text in UTF-8, so it cannot be edited here; download it.");
  }
  if (/[\0-\x08\x0b\x0c\x0e-\x1f]/.test(text)) throw new Error("This file is binary, so it cannot be edited here; download it.");
  const bare = text.replaceAll("\r\n", "");
  const mixed = bare.includes("\r") || (text.includes("\r\n") && bare.includes("\n"));
  if (mixed) throw new Error("This file has line ends of several kinds, which editing here would change; download it.");
  const ends = text.includes("\r\n") ? "\r\n" : "\n";
  return { text: text.replaceAll("\r\n", "\n"), ends };
}

/** @param {string} text @param {string} ends */
export const fromText = (text, ends) => new TextEncoder().encode(ends === "\n" ? text : text.replaceAll("\n", ends));
