"""What the board says of itself, asked over one SSH session that stays: logging in anew each time would keep it busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from scripts.board_driver.errors import MachineError
from scripts.board_driver.machine_mode import Answer, Frame, MachineParser, answer_of

QUESTIONS: Final = {
    "version": "version",
    "slots": "slots",
    "faults": "faults_print",
    "good": "get system.boot.good",
    "state": "get ota.state",
    "percent": "get ota.progress",
    "bytes": "get ota.bytes",
    "available": "get ota.available",
}
ASK_EVERY_S: Final = 2.0
AGAIN_S: Final = 3.0
ANSWER_S: Final = 20.0
NOTHING: Final[dict[str, Any]] = {"answers": False}
_MACHINE: Final = b"set system.cmd.format machine\r\n"
_READ_BYTES: Final = 16 * 1024


class SessionLostError(Exception):
    """The session ended, or does not answer."""


class Status:
    """Asks while somebody watches. `latest` is what was answered last."""

    def __init__(self, command: Callable[[], Sequence[str] | None], watched: asyncio.Event) -> None:
        """Take what gives the command line of a session (None: the board cannot be asked now), and whether to ask at all."""
        self._command = command
        self._watched = watched
        self.latest: dict[str, Any] = NOTHING

    def forget(self) -> None:
        """Know nothing until the board answers again: it is being restarted, and its session takes a while to notice."""
        self.latest = NOTHING

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            await self._watched.wait()
            # A board that starts, restarts or goes away, even while it is looked for: it is asked again soon.
            with suppress(SessionLostError, MachineError, OSError, TimeoutError, ValueError):
                command = await asyncio.to_thread(self._command)
                if command is not None:
                    await self._session(command)
            self.latest = NOTHING
            await asyncio.sleep(AGAIN_S)

    async def _session(self, command: Sequence[str]) -> None:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            asker = _Asker(process)
            await asker.ask(_MACHINE)
            while self._watched.is_set():
                answers = {name: await asker.ask(line.encode() + b"\r\n") for name, line in QUESTIONS.items()}
                self.latest = describe(answers)
                await asyncio.sleep(ASK_EVERY_S)
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


class _Asker:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self._parser = MachineParser()

    async def ask(self, line: bytes) -> Answer:
        """Send a line; return its answer. Raises SessionLostError, TimeoutError, OSError."""
        frames: list[Frame] = []
        async with asyncio.timeout(ANSWER_S):
            self._stdin.write(line)
            await self._stdin.drain()
            while not (frames and frames[-1].is_answer):
                data = await self._stdout.read(_READ_BYTES)
                if not data:
                    raise SessionLostError
                frames += self._parser.feed(data)
        return answer_of(frames)


def describe(answers: dict[str, Answer]) -> dict[str, Any]:
    """Return the answers as the page shows them. Pure; raises ValueError when they are not what was asked."""
    text = {name: answer.body if answer.ok else "" for name, answer in answers.items()}
    return {
        "answers": True,
        "safe_mode": answers["version"].safe_mode,
        "version": text["version"],
        "good": text["good"].strip() == "1",
        "slots": [row.split() for row in text["slots"].splitlines()[1:]],
        "faults": [] if text["faults"].strip() == "No faults" else text["faults"].splitlines(),
        "update": {
            "state": text["state"].strip(), "percent": int(text["percent"] or 0), "bytes": int(text["bytes"] or 0),
            "available": text["available"].strip(),
        },
    }  # fmt: skip
