// Bytes: the checksum of files, base64, and the blocks of machine mode. Pure.

const TABLE = Uint16Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x8408 : value >>> 1;
  return value;
});

/**
 * CRC-16/MCRF4XX, as the device keeps it with each file.
 * @param {Uint8Array} bytes
 * @param {number} [crc] of what came before
 * @returns {number}
 */
export function crc16(bytes, crc = 0xffff) {
  for (const byte of bytes) crc = (crc >>> 8) ^ TABLE[(crc ^ byte) & 0xff];
  return crc;
}

/** @param {number} crc */
export const hex4 = (crc) => crc.toString(16).padStart(4, "0");

/**
 * @param {Uint8Array} bytes
 * @returns {string}
 */
export function toBase64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/**
 * @param {string} text
 * @returns {Uint8Array}
 */
export const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

/** @typedef {{kind: string, code: number, body: Uint8Array}} Frame */

/** Takes a machine-mode byte stream apart, in pieces of any size; throws at bytes that are no header. */
export class FrameReader {
  #held = new Uint8Array(0);

  /**
   * @param {Uint8Array} data
   * @returns {Frame[]} the blocks that are complete now
   */
  feed(data) {
    const all = new Uint8Array(this.#held.length + data.length);
    all.set(this.#held);
    all.set(data, this.#held.length);
    const found = [];
    let at = 0;
    while (all.length - at >= 9) {
      const header = String.fromCharCode(...all.subarray(at, at + 9));
      const match = /^([RSL])(\d)(\d{5})\r\n$/.exec(header);
      if (!match) throw new Error("These bytes are no answer of the device.");
      const end = at + 9 + Number(match[3]);
      if (all.length < end) break;
      found.push({ kind: match[1], code: Number(match[2]), body: all.slice(at + 9, end) });
      at = end;
    }
    this.#held = all.slice(at);
    return found;
  }
}
