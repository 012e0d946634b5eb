"""From a core to frames: the program counter, the caller of a leaf function, then the chain of frame pointers.

Source of the chain: the procedure call standard for AArch64 (AAPCS64), "The frame pointer": x29 points to a pair of words,
the caller's x29 and the return address. A function that calls nobody need not make one; its caller is in x30 alone.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import BinaryIO, Final

from zentrid.core.text import printable
from zentrid.debug.corefile import Core, Mapping
from zentrid.debug.modules import Module, ReadAt, function_start, read_module
from zentrid.ports import Frame

MAX_FRAMES: Final = 32
MAX_MODULE_CHARS: Final = 200
NO_FILE: Final = "[no file]"
"""The module of an address where no file was mapped: a jump to nowhere, code made at run time, the kernel's own page."""
_INSTRUCTION_BYTES: Final = 4
_ADDRESS_MASK: Final = (1 << 64) - 1

OpenModule = Callable[[str], AbstractContextManager[BinaryIO] | None]
"""Opens a file of the device by its path, None if that cannot be done. It must not block."""


def backtrace(core: Core, open_module: OpenModule = lambda _path: None) -> tuple[Frame, ...]:
    """Return the frames of the thread that crashed, innermost first, at most 32.

    The first one's address is that of the instruction that was being run. The others' is that of the call, not of the
    instruction behind it to which it would have returned, so that all of them name the right line.
    """
    files = _Files(core, open_module)
    chain = _chain(core)
    addresses = [core.registers.pc & core.address_mask]
    caller = core.registers.lr & core.address_mask
    if core.is_code(caller) and (not chain or chain[0] != caller) and not files.same_function(addresses[0], caller - 4):
        addresses.append(caller - _INSTRUCTION_BYTES)
    addresses += [address - _INSTRUCTION_BYTES for address in chain]
    return tuple(files.frame(address) for address in addresses[:MAX_FRAMES])


def _chain(core: Core) -> list[int]:
    """Return the return addresses along x29. Frames lie higher and higher, so a loop cannot be."""
    found: list[int] = []
    pointer = core.registers.fp
    while len(found) < MAX_FRAMES and pointer % 8 == 0:
        words = core.stack_words(pointer)
        if words is None:
            break
        following, address = words[0], words[1] & core.address_mask
        if not core.is_code(address):
            break
        found.append(address)
        if following <= pointer:
            break
        pointer = following
    return found


def clean(text: str, limit: int = MAX_MODULE_CHARS) -> str:
    """Return the last `limit` characters of a text, with a question mark for everything that cannot be printed."""
    return printable(text[-limit:])


class _Files:
    """The files that were mapped, each looked at once."""

    def __init__(self, core: Core, open_module: OpenModule) -> None:
        self._core = core
        self._open = open_module
        self._modules: dict[int, Module | None] = {}

    def frame(self, address: int) -> Frame:
        """Return the frame for an address in memory."""
        mapping = self._mapping(address)
        if mapping is None:
            return Frame(NO_FILE, "", max(0, address))
        offset = address - mapping.start + mapping.offset
        module = self._module(mapping)
        inside = module.address_of(offset) if module is not None else None
        build_id = module.build_id if module is not None and inside is not None else ""
        return Frame(clean(mapping.path), build_id, (offset if inside is None else inside) & _ADDRESS_MASK)

    def same_function(self, first: int, second: int) -> bool:
        """Tell whether two addresses are in one function: then x30 is a leftover of a call that is over."""
        mapping = self._mapping(first)
        other = self._mapping(second)
        if mapping is None or other is None or mapping.path != other.path:
            return False
        module = self._module(mapping)
        if module is None:
            return False
        places = [
            module.address_of(address - part.start + part.offset)
            for address, part in ((first, mapping), (second, other))
        ]
        starts = self._function_starts(mapping.path, module, [place for place in places if place is not None])
        return len(starts) == 2 and None not in starts and starts[0] == starts[1]

    def _function_starts(self, path: str, module: Module, addresses: list[int]) -> list[int | None]:
        try:
            opened = self._open(path)
            if opened is None:
                return []
            with opened as stream:
                read_at = _reader(stream)
                real = read_module(read_at)
                # Another file may lie at this path by now.
                if real is None or (module.build_id and real.build_id != module.build_id):
                    return []
                return [function_start(real, read_at, address) for address in addresses]
        except (OSError, ValueError, OverflowError):
            return []

    def _mapping(self, address: int) -> Mapping | None:
        return next((part for part in self._core.mappings if part.start <= address < part.end), None)

    def _module(self, mapping: Mapping) -> Module | None:
        """Return what is known of the file of a mapping, by its first page in memory or else by the file."""
        begins = [
            part.start
            for part in self._core.mappings
            if part.path == mapping.path and part.offset == 0 and part.start <= mapping.start
        ]
        key = max(begins, default=-mapping.start)
        if key not in self._modules:
            head = self._core.heads.get(key, b"")
            module = read_module(lambda offset, size: head[offset : offset + size])
            if module is None or not module.build_id:
                module = self._module_on_disk(mapping.path) or module
            self._modules[key] = module
        return self._modules[key]

    def _module_on_disk(self, path: str) -> Module | None:
        try:
            opened = self._open(path)
            if opened is None:
                return None
            with opened as stream:
                return read_module(_reader(stream))
        except (OSError, ValueError, OverflowError):
            return None


def _reader(stream: BinaryIO) -> ReadAt:
    def read_at(offset: int, size: int) -> bytes:
        stream.seek(offset)
        return stream.read(size)

    return read_at
