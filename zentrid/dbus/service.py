"""What `com.zentri.Device1` does: methods become command lines, events and answers become properties. No D-Bus in here."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Final, Protocol

from zentrid.consoleclient import Result
from zentrid.core.grammar import quote
from zentrid.dbus import model
from zentrid.dbus.console import BadLineError, Console, ConsoleError
from zentrid.dbus.model import Completion, Endings, Progress, Properties
from zentrid.errors import ZentriError

log = logging.getLogger(__name__)

MAX_CALLS: Final = 16
"""So many calls of `Command`, and as many of the other methods, may be under way."""
COMMANDS_AT_ONCE: Final = 2
"""The device's console has eight places, six of them for programs; this door takes at most six."""
COMMAND_LIMIT_S: Final = 600.0
"""Longer than any command's own limit; an update that `Command("ota")` began goes on without its caller."""
BEGIN_S: Final = 1.0
"""`Install` waits so long for a refusal."""
FRESH_S: Final = 1.0
"""Properties that were read within this time are not read again when somebody asks."""
READ_LIMIT_S: Final = 20.0
READ_EVERY_S: Final = 30.0
"""Some changes have no event, for instance faults that another door has reset."""
AGAIN_S: Final = 1.0

_READINGS: Final = (
    "version", "get ota.state", "get ota.progress", "get ota.available", "get system.boot.good", "slots", "faults_print"
)  # fmt: skip
_OPTIONS: Final = {"version": str, "force": bool}


class CallError(ZentriError):
    """A call that cannot be carried out; `reason` is the last part of the D-Bus error's name."""

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


class Listener(Protocol):
    """Who signals. Must not wait."""

    def changed(self, now: Properties, names: tuple[str, ...]) -> None:
        """These fields of the properties have changed."""

    def completed(self, ending: Completion) -> None:
        """An update has ended."""


class Service:
    """The object. `run` follows the device until it is cancelled; `call` carries out a method."""

    def __init__(self, console: Console, listener: Listener) -> None:
        self._console = console
        self._listener = listener
        self._now = Properties()
        self._endings = Endings()
        self._heard = 0
        self._read_s = float("-inf")
        self._reading = asyncio.Lock()
        self._stale = asyncio.Event()
        self._calls: Counter[str] = Counter()
        self._places = asyncio.Semaphore(COMMANDS_AT_ONCE)
        self._own_place = asyncio.Semaphore(1)
        """For methods whose commands are short, so that `Cancel` never waits for the commands of others."""
        self._update: asyncio.Task[CallError | None] | None = None
        self._methods: dict[str, Callable[..., Awaitable[tuple[Any, ...]]]] = {
            "Command": self._command, "CommandData": self._command_data, "Install": self._install,
            "Cancel": lambda: self._do("ota cancel"), "MarkGood": lambda: self._do("mark_good"),
            "FaultsReset": lambda: self._do("faults_reset"), "FactoryReset": self._factory_reset,
        }  # fmt: skip

    @property
    def now(self) -> Properties:
        """The properties as they were last read or told."""
        return self._now

    # --- methods ------------------------------------------------------------------------------------------------------
    async def call(self, method: str, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        """Carry out a method; return what it gives. Raises CallError."""
        kind = "command" if method in ("Command", "CommandData") else "method"
        if self._calls[kind] >= MAX_CALLS:
            raise CallError("Busy", f"{MAX_CALLS} calls are under way already; wait for their answers.")
        self._calls[kind] += 1
        try:
            return await self._methods[method](*arguments)
        except BadLineError as error:
            raise CallError("InvalidArguments", str(error)) from error
        except ConsoleError as error:
            raise CallError("Unavailable", f"{error}.") from error
        finally:
            self._calls[kind] -= 1
            self._read_s = float("-inf")
            self._stale.set()

    async def _command(self, line: str) -> tuple[int, str, list[str]]:
        result = await self._carry_out(line, b"", self._places)
        return result.code, result.text, list(result.log)

    async def _command_data(self, line: str, data: list[int] | bytes) -> tuple[int, bytes, list[str]]:
        result = await self._carry_out(line, bytes(data), self._places)
        return result.code, result.body, list(result.log)

    async def _carry_out(self, line: str, data: bytes, place: asyncio.Semaphore) -> Result:
        try:
            async with asyncio.timeout(COMMAND_LIMIT_S), place:
                return await self._console.command(line, data)
        except TimeoutError:
            raise CallError("TimedOut", f"The command has no answer after {COMMAND_LIMIT_S:g} s.") from None

    async def _do(self, line: str) -> tuple[()]:
        result = await self._carry_out(line, b"", self._own_place)
        if result.code:
            raise CallError("Failed", result.sentence)
        return ()

    async def _factory_reset(self, mac: str, settings_only: bool) -> tuple[()]:
        return await self._do(" ".join(["factory_reset", *(["-s"] if settings_only else []), "--", quote(mac)]))

    async def _install(self, source: str, options: Mapping[str, Any]) -> tuple[()]:
        line = ota_line(source, options)
        if self._update is not None:
            raise CallError("Busy", "An update is running already; wait for Completed, or call Cancel.")
        self._endings.asked()
        task = self._update = asyncio.create_task(self._ota(line), name="update")
        await asyncio.wait({task}, timeout=BEGIN_S)
        if not task.done():
            self._endings.promised()
        elif (refusal := task.result()) is not None:
            raise refusal
        return ()

    async def _ota(self, line: str) -> CallError | None:
        """Follow an update that began here to its end; return what it failed with."""
        try:
            result = await self._console.command(line)
            code, sentence = result.code, result.sentence
        except (BadLineError, ConsoleError) as error:
            code, sentence = 1, str(error)
        finally:
            self._update = None
            self._stale.set()
        ending = self._endings.answered(code, sentence)
        if ending is not None:
            self._listener.completed(ending)
        return CallError("Failed", sentence) if code else None

    # --- properties ---------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Keep the properties true until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow())
            group.create_task(self._keep_fresh())

    async def fresh(self) -> Properties:
        """Return the properties, read anew if they were not read just now. What cannot be read stays as it was."""
        await self._read(unless_within_s=FRESH_S)
        return self._now

    async def _follow(self) -> None:
        while True:
            try:
                async with aclosing(self._console.events()) as events:
                    async for event in events:
                        self._hear(event)
            except ConsoleError as error:
                log.info("events: %s", error)
            await asyncio.sleep(AGAIN_S)

    def _hear(self, event: Mapping[str, Any]) -> None:
        if not event or model.wants_reading(event):
            self._stale.set()
        self._heard += 1
        ending = self._endings.heard(event)
        self._set(model.follow(self._now, event))
        if ending is not None:
            self._listener.completed(ending)

    async def _keep_fresh(self) -> None:
        while True:
            self._stale.clear()
            await self._read()
            await asyncio.sleep(AGAIN_S)
            try:
                async with asyncio.timeout(READ_EVERY_S):
                    await self._stale.wait()
            except TimeoutError:
                continue

    async def _read(self, unless_within_s: float = 0.0) -> None:
        async with self._reading:  # who waits here finds what the one before has read
            if asyncio.get_running_loop().time() - self._read_s < unless_within_s:
                return
            heard = self._heard
            try:
                async with asyncio.timeout(READ_LIMIT_S):
                    answers = await self._console.commands(_READINGS)
                now = read_properties(answers, self._now)
            except (ConsoleError, ValueError, TimeoutError) as error:
                log.info("properties: %s", error)
                return
            if self._heard != heard:
                # What happened meanwhile is newer than some of the answers.
                now = replace(now, state=self._now.state, progress=self._now.progress, boot_good=self._now.boot_good)
                self._stale.set()
            self._read_s = asyncio.get_running_loop().time()
            self._set(now)

    def _set(self, now: Properties) -> None:
        names, self._now = now.changed_since(self._now), now
        if names:
            self._listener.changed(now, names)


def read_properties(answers: list[Result], before: Properties) -> Properties:
    """Return the properties that the answers to the readings tell. Raises ValueError."""
    version, state, percent, available, good, slots, faults = answers
    progress = before.progress
    if state.text != before.state:
        depth = 0 if state.text == "idle" else 1
        progress = Progress(int(percent.text), state.text if depth else "", depth)
    return Properties(
        version=version.text, state=state.text, progress=progress, available=available.text,
        slots=model.parse_slots(slots.text), boot_good=good.text == "1", safe_mode=version.safe_mode,
        # A boot state that cannot be read has no faults to show; `faults_print` says why.
        faults=() if faults.code else model.parse_faults(faults.text),
    )  # fmt: skip


def ota_line(source: str, options: Mapping[str, Any]) -> str:
    """Return the command line of `Install`. Raises CallError for what it does not know."""
    for name, value in options.items():
        if name not in _OPTIONS:
            raise CallError("InvalidArguments", f"There is no option '{name}'; there are: {', '.join(_OPTIONS)}.")
        if not isinstance(value, _OPTIONS[name]):
            kind = "a string" if _OPTIONS[name] is str else "a boolean"
            raise CallError("InvalidArguments", f"The option '{name}' wants {kind}.")
    words = ["ota"]
    words += ["-f"] if options.get("force") else []
    words += ["-b", quote(options["version"])] if options.get("version") else []
    words += ["-u", quote(source)] if source else []
    return " ".join(words)
