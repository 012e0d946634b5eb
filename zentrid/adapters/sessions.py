"""Sessions of the command line, and the server that opens one for the serial port and one for each local connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from zentrid.adapters.console import READ_BYTES, Door, SerialDoor, SocketDoor, bind_socket
from zentrid.adapters.incoming import Incoming
from zentrid.adapters.payload import LinePayload
from zentrid.adapters.terminal import Terminal
from zentrid.commands.call import BUFFERED, ECHO, HEADER, PRINT_LEVEL, PROMPT, Answer, SessionState
from zentrid.commands.context import Context
from zentrid.commands.execute import Executor, failure
from zentrid.commands.help import complete
from zentrid.commands.registry import Registry
from zentrid.core.framing import Code
from zentrid.core.grammar import MAX_LINE_BYTES
from zentrid.core.lineedit import Event, LineEditor

MAX_SESSIONS: Final = 8
KEPT_FOR_PEOPLE: Final = 2
"""So many of the sessions are never given to programs: who wants to see what they do gets in."""
MAX_GREETINGS: Final = 8
"""So many further connections may be in their first moments; others are closed at once."""
IDLE_S: Final = 900.0
HELLO_S: Final = 5.0
"""A program that says what it is must be believed on a device that is busy, too. A person need not wait: any key begins."""
MAX_HELLO_BYTES: Final = 32
MAX_TYPED_AHEAD_BYTES: Final = 16 * 1024
_REOPEN_S: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
_CTRL_C: Final = b"\x03"
_MACHINE_HELLOS: Final = (b"machine", b"once", b"once-all")
_log = logging.getLogger(__name__)


class Session:
    """One command line: reads a door, carries out its lines one after the other, answers."""

    def __init__(
        self, door: Door, executor: Executor, *, machine: bool = False, once: bool = False, idle_s: float | None = None
    ) -> None:
        """Take a door; `machine` begins in machine mode; `once` ends after one line; `idle_s` closes idle ones, None never."""
        ctx = executor.ctx
        self.of_program = machine
        self._door = door
        self._executor = executor
        self._idle_s = idle_s
        self._once = once
        self._state = SessionState(ctx.settings.values, machine=machine)
        self._terminal = Terminal(door, self._state, safe_mode=ctx.safe_mode)
        self._editor = LineEditor(lambda before: complete(executor.registry, ctx, before))
        # Reading goes on while a command runs, so that Ctrl-C is seen.
        self._incoming = Incoming(door.read, MAX_TYPED_AHEAD_BYTES, self._noticed)
        self._task: asyncio.Task[Answer | None] | None = None
        self._interrupt: asyncio.Event | None = None
        self._payload: LinePayload | None = None
        self._interruptible = self._endless = False

    async def run(self) -> None:
        """Serve until the door's stream ends, the idle time is over, or this is cancelled; closes the door."""
        pump = asyncio.create_task(self._incoming.pump())
        try:
            self._greet()
            while data := await self._next_bytes():
                step = self._editor.feed(data)
                self._incoming.put_back(step.rest)
                self._door.write(step.output)
                if not await self._handle(step.event, step.line):
                    break
                await self._door.drain()
                await asyncio.sleep(0)  # a flood of blank lines must not hold up the rest of the daemon
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError):
                await pump
            self._door.close()

    def show_all(self) -> None:
        """Keep no log text back in this session, whatever the settings say."""
        self._state.set(PRINT_LEVEL, "all")
        self._state.set(BUFFERED, value=False)

    def announce(self, text: str) -> None:
        """Show lines that no command asked for."""
        self._terminal.announce(text, b"" if self._task else self._editor.redraw())

    # --- input ----------------------------------------------------------------------------------------------------
    def _noticed(self) -> None:
        self._look_for_interrupt()
        self._end_endless()

    def _end_endless(self) -> None:
        """End a command without an end of its own once nothing can be typed any more."""
        if self._incoming.ended and self._endless and self._task is not None:
            self._task.cancel()

    async def _next_bytes(self) -> bytes:
        """Return some of what has come in; nothing when there will be nothing more."""
        if not await self._incoming.wait(self._idle_s):
            self._terminal.announce("Closed: there was no input for a long time.", b"")
        return self._incoming.take(READ_BYTES)

    def _look_for_interrupt(self) -> None:
        """Act on a Ctrl-C that was typed while a command runs; what a person typed before it is dropped."""
        if self._task is None or self._task.done() or self._interrupt is None:
            return
        if self._payload is not None and not self._payload.settled:
            return  # a byte among others
        pending = self._incoming.pending
        if self._state.machine or self._payload is not None:
            # Lines of programs that come ahead may have bytes after them, and any byte among those.
            at = len(pending) - len(pending.lstrip(b"\r\n"))
            at = at if pending[at : at + 1] == _CTRL_C else -1
        else:
            at = pending.rfind(_CTRL_C)
        if at < 0:
            return
        self._incoming.take(at + 1)
        if self._interrupt.is_set():
            return
        self._interrupt.set()
        if not self._interruptible:
            self._task.cancel()

    # --- lines ----------------------------------------------------------------------------------------------------
    def _greet(self) -> None:
        ctx = self._executor.ctx
        if not self._state.flag(HEADER) and self._state.flag(PROMPT):
            if ctx.safe_mode:
                self._terminal.log(f"*** {ctx.safe_mode_reason}. Entering Safe Mode.", "error")
            else:
                self._terminal.log(ctx.version_line())
        self._prepare()

    def _prepare(self) -> None:
        """Get ready for the next line, as the switches now say."""
        self._editor.echo = self._state.flag(ECHO)
        self._editor.editing = not self._state.machine
        self._editor.prompt = self._terminal.prompt
        self._door.write(self._terminal.prompt.encode("ascii"))

    async def _handle(self, event: Event, line: str) -> bool:
        """Deal with what the editor found; False ends the session."""
        if event is Event.NONE:
            return True
        if event is Event.END:
            return self._idle_s is None  # a serial line has nobody who could open it again
        answer: Answer | None = None
        if event in (Event.OVERFLOW, Event.INVALID) and (payload := self._payload_of(line)) is not None:
            await payload.drop()
        if event is Event.OVERFLOW:
            answer = failure(Code.BUFFER_OVERFLOW, f"The line is longer than {MAX_LINE_BYTES} bytes; nothing was done.")
        elif event is Event.INVALID:
            answer = failure(Code.PARSE_ERROR, "The line is not valid UTF-8; nothing was done.")
        elif event is Event.LINE:
            answer = await self._carry_out(line)
        if answer is not None:
            self._terminal.answer(answer)
            await self._afterwards(answer)
            if self._once:
                return False
        self._prepare()
        return True

    async def _carry_out(self, line: str) -> Answer | None:
        if not self._state.machine and not self._executor.registry.keeps_secret(line):
            self._editor.remember(line)
        self._interrupt = asyncio.Event()
        self._interruptible = self._executor.interruptible(line)
        self._payload = self._payload_of(line)
        self._task = asyncio.create_task(
            self._executor.execute(line, self._state, self._terminal, self._interrupt, self._payload), name="command"
        )
        self._endless = self._executor.ends_with_session(line)
        self._look_for_interrupt()
        self._end_endless()
        try:
            await asyncio.wait([self._task])
            if self._payload is not None:
                await self._payload.drop()
            if self._task.cancelled():
                return failure(Code.FAILED, "Cancelled.")
            return self._task.result()
        finally:
            self._task.cancel()
            self._task = self._interrupt = self._payload = None

    def _payload_of(self, line: str) -> LinePayload | None:
        """Return what follows the line, if its command is one that bytes may follow."""
        if not self._executor.takes_payload(line):
            return None
        return LinePayload(self._incoming, self._editor.without_line_feed, self._echo, self._noticed)

    def _echo(self, data: bytes) -> None:
        if self._state.flag(ECHO):
            self._terminal.echo(data)

    async def _afterwards(self, answer: Answer) -> None:
        """Do what a command left for after its answer, once the answer has gone out."""
        if answer.then is None:
            return
        await self._door.drain()
        reason = await self._executor.afterwards(answer)
        if reason and self._state.flag(HEADER):
            # A program would take a second answer to one line for the next line's.
            self._terminal.log(reason, "error")
        elif reason:
            self._terminal.answer(failure(Code.FAILED, reason))


class CommandServer:
    """Opens sessions: one on the serial port, which comes back after a hang-up, and one for each local connection."""

    def __init__(
        self,
        registry: Registry,
        ctx: Context,
        *,
        idle_s: float = IDLE_S,
        max_sessions: int = MAX_SESSIONS,
        socket_gid: int | None = None,
        on_crash: Callable[[BaseException], None] | None = None,
    ) -> None:
        """Set limits; `socket_gid` may connect besides the owner; `on_crash` hears of exceptions inside commands."""
        self.executor = Executor(registry, ctx, on_crash)
        self._idle_s = idle_s
        self._max_sessions = max_sessions
        self._socket_gid = socket_gid
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._sessions: set[Session] = set()
        self._serial_wanted = False
        self._serial_open = False
        self._serial_tried = asyncio.Event()

    @property
    def listening(self) -> bool:
        """Tell whether every door that was asked for is open."""
        socket_open = self._server is not None and self._server.is_serving()
        return socket_open and (self._serial_open or not self._serial_wanted)

    @property
    def reachable(self) -> bool:
        """Tell whether commands can come in at all: a serial port that is gone for good must not restart the device."""
        return (self._server is not None and self._server.is_serving()) or self._serial_open

    async def start(self, serial_path: Path | str | None, socket_path: Path | str) -> None:
        """Open the doors; a serial port that cannot be opened now is tried again and again. Raises OSError."""
        listener = await asyncio.to_thread(bind_socket, Path(socket_path), self._socket_gid)
        self._server = await asyncio.start_unix_server(self._connected, sock=listener, limit=MAX_TYPED_AHEAD_BYTES)
        if serial_path is not None:
            self._serial_wanted = True
            self._spawn(self._serve_serial(Path(serial_path)))
            await self._serial_tried.wait()

    async def stop(self) -> None:
        """Close all sessions and doors; what runs after an answer (a restart) is not stopped."""
        if self._server is not None:
            self._server.close()
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._server = None

    def announce(self, text: str) -> None:
        """Show lines on every session."""
        for session in tuple(self._sessions):
            session.announce(text)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, session: Session) -> None:
        self._sessions.add(session)
        try:
            await session.run()
        except Exception as error:
            _log.exception("a console session failed inside the device")
            if self.executor.on_crash is not None:
                self.executor.on_crash(error)
        finally:
            self._sessions.discard(session)

    # --- serial ---------------------------------------------------------------------------------------------------
    async def _serve_serial(self, path: Path) -> None:
        tries = 0
        while True:
            try:
                door = await SerialDoor.open(path)
            except OSError as error:
                _log.warning("cannot open the serial console: %s", error)
            else:
                tries = 0
                self._serial_open = True
                self._serial_tried.set()
                await self._serve(Session(door, self.executor))
            self._serial_open = False
            self._serial_tried.set()
            await asyncio.sleep(_REOPEN_S[min(tries, len(_REOPEN_S) - 1)])
            tries += 1

    # --- local connections ----------------------------------------------------------------------------------------
    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= self._max_sessions + MAX_GREETINGS:
            writer.transport.abort()
            return
        self._spawn(self._serve_connection(reader, writer))

    async def _serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello, first = await read_hello(reader)
            door, machine, once = SocketDoor(reader, writer, first), hello in _MACHINE_HELLOS, hello[:4] == b"once"
            if (full := self._full(machine)) is not None:
                state = SessionState(self.executor.ctx.settings.values, machine=machine)
                terminal = Terminal(door, state, safe_mode=self.executor.ctx.safe_mode)
                terminal.answer(failure(Code.FAILED, full))
                await door.drain()
            else:
                session = Session(door, self.executor, machine=machine, once=once, idle_s=self._idle_s)
                if hello == b"once-all":
                    session.show_all()
                await self._serve(session)
        finally:
            writer.close()

    def _full(self, program: bool) -> str | None:
        """Return why no further session can be opened, if none can."""
        if len(self._sessions) - self._serial_open >= self._max_sessions:
            return f"{self._max_sessions} sessions are open already; close one."
        places = self._max_sessions - KEPT_FOR_PEOPLE
        if program and sum(session.of_program for session in self._sessions) >= places:
            return f"Programs have {places} sessions open already, the others are for people; try again in a moment."
        return None


async def read_hello(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the word that a connection begins with, and the bytes that came after that; a person sends no word.

    A program says first of all: NUL, `machine`, LF. NUL, `once`, LF: the same, and nothing is carried out after the first
    line, whatever bytes follow it; `once-all` also shows all log text at once. NUL, `human`, LF saves a person the wait for it.
    """
    data = b""
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(HELLO_S):
            data = await reader.read(MAX_HELLO_BYTES)
            while data[:1] == b"\0" and b"\n" not in data and len(data) < MAX_HELLO_BYTES:
                more = await reader.read(MAX_HELLO_BYTES - len(data))
                if not more:
                    break
                data += more
    if data[:1] != b"\0":
        return b"", data
    word, _, rest = data[1:].partition(b"\n")
    return word, rest
