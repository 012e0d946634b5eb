"""What `status` and `up` say about a board, for people and for programs."""

from __future__ import annotations

import re
from typing import Any

from scripts.board_driver.board import Board
from scripts.board_driver.errors import MachineError


def status(board: Board) -> dict[str, Any]:
    """Return the board's status: name, state (`running`, `off`, `down`, `damaged`), pid, run_folder, disk, ports, more.

    `off`: up, but its power is cut. `damaged`: a state file cannot be read; `problem` says which, and what to do.
    """
    result: dict[str, Any] = {
        "name": board.name,
        "state": "down",
        "pid": None,
        "run_folder": str(board.run.path),
        "disk": str(board.disk.overlay.path) if board.disk.exists else None,
        "image": None,
        "identity": None,
        "mac": None,
        "ports": {"ssh": None, "http": None, "dms": None},
        "problem": None,
    }
    try:
        record = board.disk.record()
        if record is not None:
            result |= {"identity": record.identity, "mac": record.mac}
            result["ports"]["dms"] = record.dms_port
        state = board.state()
    except MachineError as error:
        return result | {"state": "damaged", "problem": str(error)}
    if state is not None:
        process = state.process
        result |= {
            "state": "running" if process else "off",
            "pid": process.pid if process else None,
            "image": state.image,
        }
        result["ports"] |= {"ssh": state.ssh_port, "http": state.http_port}
        if state.pid is not None and process is None:
            result["problem"] = f"QEMU has ended by itself; its last words are in {board.run.qemu_log}"
    return result


def as_text(found: dict[str, Any]) -> str:
    """Return a status as lines for a person."""
    ports = found["ports"]
    lines = [f"{found['name']}: {found['state']}"]
    if found["problem"]:
        lines.append(f"  problem  {found['problem']}")
    if found["pid"]:
        lines.append(f"  process  {found['pid']}")
    if found["image"]:
        lines.append(f"  image    {found['image']}")
    if found["disk"]:
        lines.append(f"  disk     {found['disk']}")
    lines.append(f"  folder   {found['run_folder']}")
    if ports["ssh"]:
        lines.append(f"  ssh      127.0.0.1:{ports['ssh']}")
        lines.append(f"  http     http://127.0.0.1:{ports['http']}/")
    if ports["dms"]:
        lines.append(f"  DMS      expected on port {ports['dms']} of this host")
    return "\n".join(lines)


def how_to_reach(name: str, http_port: int) -> str:
    """Return the lines that `up` ends with."""
    option = "" if name == "main" else f" --name {name}"
    return "\n".join(
        (
            f"  command   scripts/board send{option} 'version'",
            f"  console   scripts/board console{option}      (leave with Ctrl-])",
            f"  shell     scripts/board ssh{option}",
            f"  web       http://127.0.0.1:{http_port}/",
            f"  stop      scripts/board down{option}",
        )
    )


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return `text` without characters that a terminal obeys: a log may hold anything."""
    return _CONTROL.sub("", text)
