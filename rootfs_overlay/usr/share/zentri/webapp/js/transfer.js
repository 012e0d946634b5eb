// Files to and from the device, in pieces that fit into a request, with their checksums.

import { crc16, hex4 } from "./bytes.js";
import { DeviceError, send } from "./device.js";
import { facts, line } from "./words.js";

/** A request has at most 64 KiB with its headers, and base64 makes four characters of three bytes. */
export const PIECE_BYTES = 42 * 1024;
const READ_BYTES = 96_000;
export const MAX_FILE_BYTES = 32 * 1024 * 1024;

/** @typedef {{name: string, size: number, version: string, type: string, flags: number, crc: string}} Stat */

/** @param {string} name @param {AbortSignal} [signal] @returns {Promise<Stat>} */
export async function stat(name, signal) {
  const found = facts((await send(line("file_stat", name), { signal })).text);
  return { name, size: Number(found.size), version: found.version, type: found.type, flags: parseInt(found.flags, 16), crc: found.crc };
}

/**
 * @typedef {object} Way
 * @property {(done: number, all: number) => void} [progress]
 * @property {AbortSignal} [signal]
 */

/**
 * Create or replace a file. The one before stays until all of it has arrived.
 * @param {string} name
 * @param {Uint8Array} bytes
 * @param {{version?: string, type?: string, flags?: number}} [meta]
 * @param {Way} [way]
 */
export async function upload(name, bytes, { version = "1.0.0", type = "fe", flags = 0 } = {}, { progress, signal } = {}) {
  if (bytes.length > MAX_FILE_BYTES) throw new DeviceError("The file is larger than 32 MiB, the most that the device keeps as one file.");
  const marks = [flags & 0x10 ? "-e" : "", flags & 0x20 ? "-u" : ""].filter(Boolean);
  const handle = (await send(line("file_create", ...marks, "-o", "--", name, bytes.length, version, type, hex4(crc16(bytes))), { signal })).text.trim();
  try {
    for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
      progress?.(at, bytes.length);
      const data = bytes.subarray(at, at + PIECE_BYTES);
      await send(`stream_write ${handle} ${data.length}`, { data, signal });
    }
    progress?.(bytes.length, bytes.length);
  } finally {
    // One that is whole is closed already, or can be; of one that is not, nothing is kept.
    await send(`stream_close ${handle}`).catch(() => undefined);
  }
}

/**
 * The bytes of a file, compared with its checksum.
 * @param {Stat} about
 * @param {Way} [way]
 * @returns {Promise<Uint8Array>}
 */
export async function download(about, { progress, signal } = {}) {
  const handle = (await send(line("file_open", about.name), { signal })).text.trim();
  const bytes = new Uint8Array(about.size);
  let at = 0;
  try {
    for (;;) {
      progress?.(at, about.size);
      const { bytes: part } = await send(`stream_read ${handle} ${READ_BYTES}`, { binary: true, signal });
      if (at + part.length > about.size) throw new DeviceError("The file has changed meanwhile; try again.");
      bytes.set(part, at);
      at += part.length;
      if (part.length < READ_BYTES) break;
    }
  } finally {
    await send(`stream_close ${handle}`).catch(() => undefined);
  }
  const crc = hex4(crc16(bytes));
  if (at !== about.size || (about.crc !== "unknown" && crc !== about.crc)) {
    throw new DeviceError(`What arrived is damaged: checksum ${crc} instead of ${about.crc}, ${at} of ${about.size} bytes. Try again.`);
  }
  return bytes;
}
