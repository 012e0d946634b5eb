"""The parts without a page, in the browser, against the device's own code: words, checksums, frames, text, the screen."""

import base64
import json
import random

import pytest

from tests.unit.webapp.conftest import App
from zentrid.core.crc16 import crc16
from zentrid.core.framing import Code, encode_answer, encode_data, encode_log
from zentrid.core.grammar import split_words
from zentrid.core.lineedit import Event, LineEditor

pytestmark = [pytest.mark.asyncio(loop_scope="session")]
HOSTILE = [
    "",
    " ",
    '"',
    "\\",
    '\\"',
    "a b",
    "\\x41",
    "--",
    "-f",
    "<img src=x onerror=alert(1)>",
    "grün 漢字",
    "$(reboot)",
    "a;b|c",
    "'",
]


async def run(app: App, module: str, code: str, given: object = None) -> object:
    """Evaluate `code` with the module as `m` and what is given as `given`."""
    await app.page.goto("/")
    return await app.page.evaluate(
        f"async given => {{ const m = await import('/js/{module}.js'); return {code}; }}", given
    )


async def test_words_come_back_as_they_were(app: App):
    some = random.Random(1)
    words = HOSTILE + ["".join(some.choices('ab "\\xü\t', k=some.randrange(9))) for _ in range(300)]
    lines = await run(app, "words", "given.map((word) => m.line('set', word, 3))", words)
    assert [split_words(line) for line in lines] == [["set", word, "3"] for word in words]  # type: ignore[attr-defined]


async def test_checksums_and_base64(app: App):
    some = random.Random(2)
    pieces = [b"", b"123456789", bytes(range(256)) * 200, some.randbytes(20_011)]
    found = await run(
        app,
        "bytes",
        "given.map((text) => { const b = m.fromBase64(text); return [m.crc16(b), m.toBase64(b) === text, m.hex4(7)]; })",
        [base64.b64encode(piece).decode() for piece in pieces],
    )
    assert found == [[crc16(piece), True, "0007"] for piece in pieces]


async def test_frames_in_pieces_of_any_size(app: App):
    stream = (
        encode_answer(Code.SUCCESS, "one", safe_mode=False)
        + encode_log("grün\nzwei")
        + encode_data(b"\x00\xff\r\nR000009\r\n", safe_mode=True)
        + encode_answer(Code.FAILED, "", safe_mode=False)
    )
    for step in (1, 7, 1000):
        found = await run(
            app,
            "bytes",
            f"""(() => {{ const r = new m.FrameReader(), all = [];
            for (let at = 0; at < given.length; at += {step}) all.push(...r.feed(Uint8Array.from(given.slice(at, at + {step}))));
            return all.map((f) => [f.kind, f.code, [...f.body]]); }})()""",
            list(stream),
        )
        assert [(kind, code, bytes(body)) for kind, code, body in found] == [  # type: ignore[attr-defined]
            ("R", 0, b"one\r\n"),
            ("L", 0, "grün\r\n".encode()),
            ("L", 0, b"zwei\r\n"),
            ("S", 0, b"\x00\xff\r\nR000009\r\n\r\n"),
            ("R", 1, b""),
        ]
    thrown = await run(
        app,
        "bytes",
        "(() => { try { new m.FrameReader().feed(Uint8Array.from(given)); } catch (e) { return e.message; } })()",
        list(b"HTTP/1.1 200"),
    )
    assert thrown == "These bytes are no answer of the device."


async def test_answers_are_taken_apart(app: App):
    found = await run(
        app,
        "words",
        """JSON.stringify([m.facts('a.b: c: d\\r\\n__proto__: x\\r\\nempty:\\r\\nnothing'),
        m.rows('# slot  name\\r\\n  a     factory reset button\\r\\n'), m.rows('No files'),
        m.release('DEMO-VIRT_SENSOR-1.4.0-rc.1, 2026, Zentri-1.4.0, Board:virt'), m.release(''),
        [999, 2048, 3145728, NaN].map(m.size), [5, 61, 90061, NaN].map(m.duration),
        ['10.0.2.15', '1.2.3', '1.2.3.256', 'evil.example', '1.2.3.4/'].map(m.isAddress)])""",
    )
    assert json.loads(str(found)) == [
        {"a.b": "c: d", "__proto__": "x", "empty": ""},
        [{"slot": "a", "name": "factory reset button"}],
        [],
        {"product": "DEMO-VIRT_SENSOR", "version": "1.4.0-rc.1", "built": "2026", "zentri": "1.4.0", "board": "virt"},
        {"product": "", "version": "", "built": "", "zentri": "", "board": ""},
        ["999 bytes", "2.0 KiB", "3.0 MiB", "not known"],
        ["5 s", "1 min", "1 d 1 h", "not known"],
        [True, False, False, False, False],
    ]


async def test_what_is_text_comes_back_byte_for_byte(app: App):
    code = """given.map((bytes) => { try { const t = m.asText(Uint8Array.from(bytes));
    return [t.text, [...m.fromText(t.text, t.ends)]]; }
    catch (e) { return e.message; } })"""
    texts = [b"", b"a\nb\n", b"a\r\nb\r\n", b"\xef\xbb\xbfmark\n", "grün\tx".encode()]
    refused = [b"a\r\nb\n", b"a\rb", b"\x00\x01", b"\xff\xfe", b"x" * 262_145]
    found = await run(app, "text", code, [list(one) for one in texts + refused])
    assert [bytes(one[1]) for one in found[: len(texts)]] == texts  # type: ignore[index]
    assert [one.split(",")[0].split(";")[0] for one in found[len(texts) :]] == [  # type: ignore[index]
        "This file has line ends of several kinds",
        "This file has line ends of several kinds",
        "This file is binary",
        "This is no text in UTF-8",
        "The file is too large to be edited here",
    ]


KEYS = [
    *(key.encode() for key in ("a", "b ", "ü", "漢")),
    *(b"\x7f", b"\x1b[D", b"\x1b[C", b"\x1b[3~"),  # backspace, arrows, delete
    *(b"\x01", b"\x05", b"\x0b", b"\x15", b"\x17", b"\x10", b"\x0e", b"\x0c", b"\t"),
]


async def test_the_screen_shows_the_line_that_is_being_edited(app: App):
    some = random.Random(3)
    outputs, lines = [], []
    for _ in range(60):
        editor = LineEditor(lambda _before: ("alpha", "beta"))
        editor.prompt = "> "
        editor.remember("an earlier one 漢字")
        output = b"> "
        for key in some.choices(KEYS, k=some.randrange(40)):
            step = editor.feed(key)
            assert step.event in (Event.NONE, Event.INTERRUPT)
            output += step.output
        outputs.append(output.decode())
        lines.append(f"> {editor.text}".rstrip())
    shown = await run(
        app,
        "screen",
        "given.map((text) => { const s = new m.Screen(); s.write(text); return s.line().join('').trimEnd(); })",
        outputs,
    )
    assert shown == lines


async def test_the_screen_obeys_nothing_else(app: App):
    line = "(() => { const s = new m.Screen(); s.write(given); return s.line(); })()"
    assert await run(app, "screen", line, "\u6f22e\u0301x\b\b\b\b") == ["", "\u6f22", "e\u0301x"]
    text = (
        "one\r\n\x1b]0;title\x07two\x1b[31;1mred\x1b[999999999D!\r\n"
        + "x" * 20_000
        + "\x1b[99999999C"
        + "\x1b"
        + "9" * 50
        + "\r\n" * 5000
    )
    found = await run(
        app,
        "screen",
        "(() => { const s = new m.Screen(); s.write(given); return [s.finished.length, s.line()]; })()",
        text,
    )
    assert found == [2000, ["", " ", ""]]
    wiped = await run(
        app,
        "screen",
        "(() => { const s = new m.Screen(); s.write(given); return [s.cleared, s.finished, s.line().join('')]; })()",
        "old\r\nold\x1b[H\x1b[2J> new",
    )
    assert wiped == [True, [], "> new "]
