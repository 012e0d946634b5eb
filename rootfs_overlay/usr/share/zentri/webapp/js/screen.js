// A terminal's screen as lines of cells: what the device's line editor sends, and nothing that could do more. Pure.

const MAX_LINES = 2000;
const MAX_CELLS = 8192;
const WIDE = /[\u1100-\u115f\u2e80-\u303e\u3041-\u33ff\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;
const MARK = /^[\p{Mn}\p{Me}]$/u;

export class Screen {
  /** @type {string[]} lines that are finished and not taken yet */
  finished = [];
  /** Whether everything before was wiped away. */
  cleared = false;
  /** @type {string[]} the line with the cursor: a cell a column; the second one of a wide character is empty */
  #cells = [];
  #at = 0;
  #escape = "";

  /** @param {string} text */
  write(text) {
    for (const char of text) {
      if (this.#escape) this.#sequence(char);
      else if (char === "\x1b") this.#escape = char;
      else if (char === "\n") this.#newLine();
      else if (char === "\r") this.#at = 0;
      else if (char === "\b") this.#at = Math.max(0, this.#at - 1);
      else if (char === "\t") this.#put(" ");
      else if (char >= " " && char !== "\x7f") this.#put(char);
    }
  }

  /** The line with the cursor, cut at it. @returns {[string, string, string]} before, under, after */
  line() {
    const cells = this.#cells;
    let under = this.#at + 1;
    while (under < cells.length && cells[under] === "") under++;
    return [cells.slice(0, this.#at).join("").padEnd(this.#at > cells.length ? this.#at : 0), cells[this.#at] ?? " ", cells.slice(under).join("")];
  }

  #newLine() {
    this.finished.push(this.#cells.join("").trimEnd());
    if (this.finished.length > MAX_LINES) this.finished.shift();
    this.#cells = [];
    this.#at = 0;
  }

  /** @param {string} char */
  #put(char) {
    if (MARK.test(char)) {
      let before = this.#at - 1;
      while (before > 0 && this.#cells[before] === "") before--;
      if (before >= 0) this.#cells[before] += char;
      return;
    }
    if (this.#at >= MAX_CELLS) return;
    while (this.#cells.length < this.#at) this.#cells.push(" ");
    this.#cells[this.#at++] = char;
    if (WIDE.test(char)) this.#cells[this.#at++] = "";
  }

  /** @param {string} char */
  #sequence(char) {
    this.#escape += char;
    if (this.#escape.length === 2 && "[O".includes(char)) return;
    if (this.#escape.length > 2 && char >= " " && char <= "?" && this.#escape.length < 16) return;
    const sequence = this.#escape.slice(2);
    this.#escape = "";
    const count = parseInt(sequence, 10) || 1;
    if (char === "D" && sequence) this.#at = Math.max(0, this.#at - count);
    else if (char === "C" && sequence) this.#at = Math.min(MAX_CELLS, this.#at + count);
    else if (sequence === "K" || sequence === "0K") this.#cells.length = Math.min(this.#cells.length, this.#at);
    else if (sequence === "2J") {
      this.finished = [];
      this.#cells = [];
      this.#at = 0;
      this.cleared = true;
    }
  }
}
