"""A client of the console in tests, and a door that is no device: what goes in and out is in memory."""

from __future__ import annotations

import asyncio

from zentrid.commands.call import Answer, CollectedOutput, Payload, SessionState
from zentrid.commands.catalog import build_registry
from zentrid.commands.execute import Executor
from zentrid.commands.registry import Registry
from zentrid.core.framing import Code
from zentrid.core.grammar import CommandError
from zentrid.core.variable_list import VARIABLES
from zentrid.core.variables import VariableTable

from .fakes import Device


class Progress(CollectedOutput):
    """Collects progress as well."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, str]] = []

    def progress(self, percent: int, text: str) -> None:
        """Keep it."""
        self.steps.append((percent, text))


class MemoryPayload:
    """Bytes that follow a line."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.expected: int | None = None

    def expect(self, size_bytes: int) -> None:
        """Note it."""
        self.expected = size_bytes

    async def read(self, size_bytes: int) -> bytes:
        """Return some, or tell that they do not come."""
        assert self.expected is not None, "a command reads before it says how much will come"
        if size_bytes > len(self.data):
            raise CommandError(Code.FAILED, "The connection ended.")
        data, self.data = self.data[:size_bytes], self.data[size_bytes:]
        return data


class Caller:
    """Carries out command lines on a device in one session."""

    def __init__(self, device: Device, table: VariableTable = VARIABLES) -> None:
        self.device = device
        self.executor = Executor(Registry(build_registry(), table), device.ctx, self._crashed)
        self.state = SessionState(device.settings.values)
        self.out = Progress()
        self.crashes: list[BaseException] = []

    def _crashed(self, error: BaseException) -> None:
        self.crashes.append(error)

    async def __call__(
        self, line: str, interrupt: asyncio.Event | None = None, payload: Payload | None = None
    ) -> Answer:
        """Carry out a line that is not blank."""
        answer = await self.executor.execute(line, self.state, self.out, interrupt, payload)
        assert answer is not None
        return answer

    async def body(self, line: str) -> str:
        """Carry out a line that must succeed; return its body."""
        answer = await self(line)
        assert answer.code == 0, (line, answer)
        return answer.body


class MemoryDoor:
    """A door whose two sides are in memory."""

    def __init__(self) -> None:
        self.output = bytearray()
        self.closed = False
        self._input: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Event()
        self.gone = asyncio.Event()
        """Cleared: the output does not go away, and draining waits."""
        self.gone.set()

    @property
    def unread(self) -> int:
        """How many typed pieces nobody has read."""
        return self._input.qsize()

    def type(self, data: bytes) -> None:
        """Type something; nothing at all ends the stream."""
        self._input.put_nowait(data)

    async def until(self, part: bytes, timeout_s: float = 5.0) -> bytes:
        """Wait for output up to and including `part`; take it away and return it."""
        try:
            async with asyncio.timeout(timeout_s):
                while part not in self.output:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{part!r} did not come; there is {bytes(self.output)!r}") from None
        end = self.output.index(part) + len(part)
        taken = bytes(self.output[:end])
        del self.output[:end]
        return taken

    async def read(self) -> bytes:
        """Return what was typed."""
        return await self._input.get()

    def write(self, data: bytes) -> None:
        """Keep the output."""
        self.output += data
        self._changed.set()

    async def drain(self) -> None:
        """Wait for the output to be gone."""
        await self.gone.wait()

    def close(self) -> None:
        """Note it."""
        self.closed = True
