"""The command line's local socket in tests: the real one of a device in memory, or one that says what it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from zentrid.adapters.sessions import CommandServer
from zentrid.commands.catalog import build_registry
from zentrid.commands.registry import Registry

from .fakes import Device


@asynccontextmanager
async def console(device: Device, path: Path, registry: Registry | None = None) -> AsyncIterator[Path]:
    """Serve the command language on a local socket: all commands, or those in `registry`."""
    server = CommandServer(registry or build_registry(), device.ctx)
    await server.start(None, path)
    try:
        yield path
    finally:
        await server.stop()


@asynccontextmanager
async def scripted_console(path: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """Be a daemon that gives each connection the next answer at its first line; yields what each one sent until then."""
    heard: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(heard)
        heard.append(b"")
        while data := await reader.read(65536):
            heard[number] += data
            if b"\r\n" in heard[number] and left:
                writer.write(left.pop(0))
                await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield heard
    finally:
        server.close()
