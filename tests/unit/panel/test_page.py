"""The page's own small terminal, run by node, against what the console's line editor really sends."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from zentrid.core.lineedit import LineEditor

STATIC = Path(__file__).resolve().parents[3] / "scripts/panel/static"
SCRIPT = (STATIC / "panel.js").read_text()
TERMINAL = SCRIPT[SCRIPT.index("class Terminal") : SCRIPT.index("const terminal =")]

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed; the page is not run")


def shown(pieces: Sequence[str]) -> list[str]:
    """Return the lines that the terminal shows after these pieces of output."""
    code = f"""
    const LINES_KEPT = 5;
    {TERMINAL}
    Terminal.prototype.draw = () => {{}};
    const terminal = new Terminal(null);
    for (const piece of {json.dumps(list(pieces))}) terminal.write(piece);
    console.log(JSON.stringify(terminal.lines));
    """
    done = subprocess.run(["node", "-e", code], capture_output=True, text=True, timeout=30, check=True)
    return [str(line) for line in json.loads(done.stdout)]


@needs_node
@pytest.mark.parametrize(
    ("output", "lines"),
    [
        (["one\r\ntwo"], ["one", "two"]),
        (["[###---] 10%", "\r\x1b[K", "[######] 100%\r\n"], ["[######] 100%", ""]),
        (["abc\b\b", "X"], ["aXc"]),
        (["abc\x1b[2D", "\x1b[K!"], ["a!"]),
        (["\x1b[1;32mgreen\x1b[0m \x1b[2Jx"], ["      x"]),
        (["a\x1b", "[", "K", "b"], ["ab"]),
        (["\x07\x00bell"], ["bell"]),
        (["<b>&amp;</b>"], ["<b>&amp;</b>"]),
        ([f"{n}\r\n" for n in range(9)], ["5", "6", "7", "8", ""]),
    ],
)
def test_what_the_terminal_shows(output: list[str], lines: list[str]) -> None:
    assert shown(output) == lines


@needs_node
def test_a_line_that_is_edited_looks_as_it_was_meant() -> None:
    editor = LineEditor(lambda _before: ["version", "versions"])
    editor.prompt = "> "
    keys = b"vrsion\x1b[D\x1b[D\x1b[D\x1b[D\x1b[De\x1b[F!\x7f\x01X\x1b[3~\x1b[H\x1b[C"
    pieces = ["> "] + [editor.feed(bytes([key])).output.decode() for key in keys]
    assert shown(pieces)[-1].rstrip() == "> Xersion"


STAND_IN = """
const elements = {}, sent = [], sockets = [];
const element = (tag) => {
  const one = { tag, attributes: {}, listeners: {}, children: [], textContent: "", className: "", scrollHeight: 0, scrollTop: 0,
    clientHeight: 0 };
  one.addEventListener = (name, act) => { one.listeners[name] = act; };
  one.setAttribute = (name, value) => { one.attributes[name] = value; };
  one.getAttribute = (name) => one.attributes[name];
  one.replaceChildren = (...children) => { one.children = children; };
  one.prepend = (child) => { one.textContent = child.textContent + one.textContent; };
  one.setPointerCapture = () => {};
  return one;
};
globalThis.document = { getElementById: (id) => elements[id] ??= element(id), createElement: element };
globalThis.location = { host: "127.0.0.1:8900" };
globalThis.getSelection = () => "";
globalThis.setTimeout = () => 0;
globalThis.WebSocket = class {
  static OPEN = 1;
  constructor(url) { this.url = url; this.readyState = 1; this.listeners = {}; sockets.push(this); }
  addEventListener(name, act) { this.listeners[name] = act; }
  send(text) { sent.push(JSON.parse(text)); }
};
const text = (one) => typeof one === "string" ? one : one.textContent + one.children.map(text).join("|");
const hear = (news) => sockets[0].listeners.message({ data: JSON.stringify(news) });
const key = (id, name, more = {}) => elements[id].listeners[name]({ key: "", preventDefault() {}, ...more });
"""
STORY = """
hear({ kind: "board", name: "main" });
hear({ kind: "look", power: true, led: true, pressed: false });
hear({ kind: "console", text: "> <b>" });
hear({ kind: "status", answers: true, safe_mode: true, version: "DEMO-1.0.0", good: false,
  slots: [["a", "1.0.0"], ["b", "-"]], faults: ["0: panic, slot a"],
  update: { state: "downloading", percent: 40, bytes: 12, available: "" } });
hear({ kind: "complaint", text: "no power" });
key("console", "keydown", { key: "v" });
key("console", "keydown", { key: "Enter" });
key("console", "keydown", { key: "c", ctrlKey: true });
key("button", "keydown", { key: " " });
key("button", "keydown", { key: " ", repeat: true });
key("button", "keyup", { key: " " });
key("button", "pointerdown", { button: 0, shiftKey: true });
key("button", "pointerup");
key("button", "pointerdown", { button: 0 });
key("power", "click");
key("reset", "click");
const told = Object.fromEntries(["name", "version", "slots", "faults", "update-state", "update-more", "console", "complaint"]
  .map((id) => [id, text(elements[id])]));
console.log(JSON.stringify({ url: sockets[0].url, told, led: elements.led.className, power: elements.power.attributes, sent }));
"""


@needs_node
def test_the_page_shows_what_it_hears_and_says_what_is_done() -> None:
    done = subprocess.run(
        ["node", "-e", STAND_IN + SCRIPT + STORY], capture_output=True, text=True, timeout=30, check=True
    )
    page = json.loads(done.stdout)
    assert page["url"] == "ws://127.0.0.1:8900/socket"
    assert page["told"] == {
        "name": "main", "version": "SAFE MODE DEMO-1.0.0", "slots": "a|1.0.0|b|-", "faults": "panic, slot a",
        "update-state": "downloading", "update-more": "40 %, 12 bytes received", "console": "> <b>| |", "complaint": "no power",
    }  # fmt: skip
    assert (page["led"], page["power"]) == ("on", {"aria-checked": "true"})
    assert page["sent"] == [
        {"do": "type", "text": "v"}, {"do": "type", "text": "\r"}, {"do": "type", "text": "\x03"},
        {"do": "press"}, {"do": "release"},
        {"do": "press"}, {"do": "release"},  # with Shift it stays down until the next press
        {"do": "power", "on": False}, {"do": "reset"},
    ]  # fmt: skip


def test_the_page_has_nothing_from_elsewhere_and_runs_nothing_inline() -> None:
    page = (STATIC / "index.html").read_text()
    assert "://" not in page
    assert "style=" not in page
    assert "<script>" not in page
    assert "innerHTML" not in SCRIPT, "what comes from the board is text"
    for name in ("led", "power", "reset", "button", "slots", "faults", "console", "update-state", "complaint"):
        assert f'id="{name}"' in page
        assert f'$("{name}")' in SCRIPT
