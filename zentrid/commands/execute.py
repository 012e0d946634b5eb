"""Carries out one command line: the one place where errors become codes and sentences."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from zentrid.commands.call import Answer, Call, NoPayload, Output, Payload, Reply, SessionState
from zentrid.commands.context import Context
from zentrid.commands.registry import Command, Registry
from zentrid.core.framing import TEXTS, Code
from zentrid.core.grammar import CommandError, split_words
from zentrid.errors import ZentriError

_log = logging.getLogger(__name__)


def failure(code: Code, reason: str) -> Answer:
    """Return the answer of a command that failed."""
    return Answer(code, TEXTS[code], reason)


@dataclass(frozen=True)
class Executor:
    """Runs command lines for the doors; holds nothing of any session."""

    registry: Registry
    ctx: Context
    on_crash: Callable[[BaseException], None] | None = None
    """Told of exceptions that no command may let out; the supervisor records them as faults."""
    _after: set[asyncio.Future[None]] = field(default_factory=set)

    async def execute(
        self,
        line: str,
        session: SessionState,
        out: Output,
        interrupt: asyncio.Event | None = None,
        payload: Payload | None = None,
    ) -> Answer | None:
        """Carry out one line; None for a blank one. Never raises, except when cancelled."""
        try:
            words = split_words(line)
            if not words:
                return None
            announced_bytes = self.registry.announced_bytes(words)
            if announced_bytes is not None and payload is not None:
                payload.expect(announced_bytes)
            command, rest = self.registry.resolve(words, safe_mode=self.ctx.safe_mode)
            arguments = command.signature.parse(rest, command.name)
        except CommandError as error:
            return failure(error.code, str(error))
        call = Call(
            self.ctx, self.registry, session, out, arguments, interrupt or asyncio.Event(), payload or NoPayload()
        )
        return await self._run(command, call)

    async def afterwards(self, answer: Answer) -> str:
        """Do what a command left for after its answer; returns why that failed, or nothing.

        It goes on even if the caller is cancelled: restarting the board closes the very session that asked for it.
        """
        if answer.then is None:
            return ""
        work = asyncio.ensure_future(answer.then())
        self._after.add(work)
        work.add_done_callback(self._after.discard)
        try:
            await asyncio.shield(work)
        except ZentriError as error:
            return str(error)
        except Exception as error:
            _log.exception("what follows a command failed inside the device")
            if self.on_crash is not None:
                self.on_crash(error)
            return f"It failed inside the device ({type(error).__name__}); the log has the details."
        return ""

    def interruptible(self, line: str) -> bool:
        """Tell whether the line's command deals with Ctrl-C itself."""
        command = self._command_of(line)
        return command is not None and command.interruptible

    def ends_with_session(self, line: str) -> bool:
        """Tell whether the line's command has no end of its own."""
        try:
            found = self.registry.find(split_words(line))
            return found is not None and found[0].ends_with_session(found[0].signature.parse(found[1], found[0].name))
        except CommandError:
            return False

    def takes_payload(self, line: str) -> bool:
        """Tell whether bytes may follow the line, even if the rest of it cannot be taken apart."""
        try:
            words = split_words(line)
        except CommandError:
            words = line.replace('"', " ").split()
        found = self.registry.find(words)
        return found is not None and found[0].payload_size is not None

    def _command_of(self, line: str) -> Command | None:
        try:
            found = self.registry.find(split_words(line))
        except CommandError:
            return None
        return None if found is None else found[0]

    async def _run(self, command: Command, call: Call) -> Answer:
        limit = asyncio.timeout(command.timeout_s)
        try:
            async with limit:
                reply = await command.run(call)
        except CommandError as error:
            return failure(error.code, str(error))
        except ZentriError as error:
            return failure(Code.FAILED, str(error))
        except Exception as error:
            if isinstance(error, TimeoutError) and limit.expired():
                return failure(Code.FAILED, f"{command.name} took longer than {command.timeout_s:g} s; try again.")
            _log.exception("command %s failed inside the device", command.name)
            if self.on_crash is not None:
                self.on_crash(error)
            return failure(
                Code.FAILED,
                f"{command.name} failed inside the device ({type(error).__name__}); the log has the details.",
            )
        if not isinstance(reply, Reply):
            reply = Reply() if reply is None else Reply(reply)
        return Answer(Code.SUCCESS, reply.body, then=reply.then, data=reply.data)
