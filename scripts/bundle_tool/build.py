"""Building a bundle: payload files in, one unsigned `.zb` out. The same files and options give the same bytes."""

from __future__ import annotations

import tarfile
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from scripts.board_driver.boards import BOARDS, DEFAULT
from scripts.bundle_tool.elfcheck import check_file, is_elf, read_elf
from scripts.bundle_tool.files import whole_or_nothing
from zentrid.bundle.encode import FULL_LEVEL, encode_full
from zentrid.bundle.manifest import ElfFacts, Item, ItemType, Manifest, Removal
from zentrid.bundle.zbfile import PayloadReader, write_bundle
from zentrid.core.apps import NAME_PATTERN as APP_NAME_PATTERN
from zentrid.core.version import Version, parse_version
from zentrid.errors import ZentriError

_TAR_MAGIC_OFFSET = 257
_TAR_MAGIC = b"ustar"

Progress = Callable[[str, int, int], object]
"""Called with an item's name, its blocks done and its blocks in all."""


class BuildError(ZentriError):
    """The bundle cannot be built from what was given."""

    reason = "bad_input"


@dataclass(frozen=True)
class Source:
    """One payload to put in."""

    type: ItemType
    name: str
    file: Path
    path: str | None = None
    version: Version | None = None
    entry: str | None = None


@dataclass(frozen=True)
class BuildOptions:
    """What a bundle is made from."""

    product: str
    version: Version
    sources: Sequence[Source]
    compatible: Sequence[str] = (DEFAULT.name,)
    """Names of the boards that it runs on."""
    min_version: Version | None = None
    boot_floor: Version | None = None
    allow_downgrade_to: Version | None = None
    notes: str = ""
    remove: Sequence[Removal] = ()
    libraries: frozenset[str] | None = None
    """Library names that the image has; None: not known, then no dynamic program is taken."""
    level: int = FULL_LEVEL

    @property
    def machine(self) -> str:
        """The processor that its programs are for, as ELF facts name it; the ordinary board's for boards that are not known here.

        Raises BuildError when the boards have different processors: no program runs on both.
        """
        machines = {BOARDS[name].elf_machine for name in self.compatible if name in BOARDS}
        if len(machines) > 1:
            raise BuildError(
                f"boards {', '.join(self.compatible)}: no program runs on all of them; build a bundle for each"
            )
        return machines.pop() if machines else DEFAULT.elf_machine


def parse_source(kind: ItemType, text: str, entries: dict[str, str]) -> Source:
    """Return what `NAME[@VERSION]=FILE` on the command line means for an app or a file. Raises BuildError.

    `entries`: programs to start by app name; what is used is taken out.
    """
    left, equals, file = text.partition("=")
    name, _, version = left.partition("@")
    if not equals or not name or not file:
        raise BuildError(f"--{kind} {text!r}: write NAME=FILE or NAME@VERSION=FILE")
    return Source(
        type=kind,
        name=_item_name(kind, name),
        file=Path(file),
        path=name if kind == "file" else None,
        version=parse_version(version) if version else None,
        entry=entries.pop(name, None) if kind == "app" else None,
    )


def parse_removal(text: str) -> Removal:
    """Return what `app:NAME` or `file:PATH` on the command line means. Raises BuildError."""
    kind, _, name = text.partition(":")
    if kind not in ("app", "file") or not name:
        raise BuildError(f"--remove {text!r}: write app:NAME or file:PATH")
    item_type: ItemType = "app" if kind == "app" else "file"
    return Removal(item_type, _item_name(item_type, name))


def _item_name(kind: ItemType, text: str) -> str:
    """Return the name in the manifest: a file's is made from its path."""
    return text.replace("/", "_") if kind == "file" else text


def build_bundle(options: BuildOptions, out: Path, progress: Progress | None = None) -> Manifest:
    """Build the bundle and return its manifest. Raises BuildError, ElfError, ManifestError, …, or OSError."""
    if not options.sources and not options.remove:
        raise BuildError("nothing to put in: give --kernel, --rootfs, --app, --file or --remove")
    out.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        items: list[Item] = []
        payloads: dict[str, BinaryIO | PayloadReader] = {}
        for source in options.sources:
            item, payload = _encode(source, options, out.parent, stack, progress)
            items.append(item)
            payloads.setdefault(item.root_hash, payload)
        manifest = Manifest(
            product=options.product,
            version=options.version,
            compatible=tuple(options.compatible),
            items=tuple(items),
            min_version=options.min_version,
            boot_floor=options.boot_floor,
            allow_downgrade_to=options.allow_downgrade_to,
            notes=options.notes,
            remove=tuple(options.remove),
        )
        with whole_or_nothing(out) as stream:
            return write_bundle(stream, manifest.to_bytes(), {}, payloads)


def _encode(
    source: Source, options: BuildOptions, folder: Path, stack: ExitStack, progress: Progress | None
) -> tuple[Item, BinaryIO]:
    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(source.name, done, total)

    if source.type == "app" and not APP_NAME_PATTERN.fullmatch(source.name):
        raise BuildError(
            f"app {source.name!r}: an application's name has lower-case letters, digits, '-' and '_', at most 32"
        )
    if not source.file.is_file():
        raise BuildError(f"{source.file}: no such file; it was given as {source.type} {source.name}")
    with source.file.open("rb") as payload:
        kind, elf = (None, None) if source.type in ("kernel", "rootfs") else _inspect(payload, source, options)
        payload.seek(0)
        out = stack.enter_context(cast("BinaryIO", tempfile.TemporaryFile(dir=folder)))  # noqa: SIM115
        encoded = encode_full(payload, out, level=options.level, progress=tell)
        out.seek(0)
    entry = source.entry
    if source.type == "app" and entry is None and kind != "data":
        entry = source.name
    item = Item(
        type=source.type,
        name=source.name,
        size_bytes=encoded.size_bytes,
        root_hash=encoded.tree.root.hex(),
        version=source.version,
        entry=entry,
        path=source.path,
        kind=kind,
        elf=elf,
    )
    return item, out


def _inspect(payload: BinaryIO, source: Source, options: BuildOptions) -> tuple[str, ElfFacts | None]:
    """Return the kind of an app or file, and its ELF facts if it is ELF, or if its program inside a tar is."""
    if is_elf(payload):
        return "elf", _check_elf(payload, source.name, options, set())
    start = payload.read(_TAR_MAGIC_OFFSET + len(_TAR_MAGIC))
    payload.seek(0)
    if start[_TAR_MAGIC_OFFSET:] == _TAR_MAGIC:
        return "tar", _inspect_tar(payload, source, options)
    return ("script" if start.startswith(b"#!") else "data"), None


def _check_elf(stream: BinaryIO, name: str, options: BuildOptions, own: set[str]) -> ElfFacts:
    if options.libraries is not None:
        return check_file(stream, name, options.libraries | own, options.machine)
    # Not knowing the image, only of what needs nothing from it can be said that it starts there.
    needed = [library for library in read_elf(stream, name).facts.needed if library not in own]
    facts = check_file(stream, name, {*needed, *own}, options.machine)
    if needed:
        raise BuildError(
            f"{name}: needs {', '.join(needed[:8])}; say what the image has with --rootfs-dir or --libs, so that it can "
            "be checked"
        )
    return facts


def _inspect_tar(payload: BinaryIO, source: Source, options: BuildOptions) -> ElfFacts | None:
    """Check every ELF file in a tar; libraries in the tar itself count as present. Return the entry program's facts."""
    entry_facts: ElfFacts | None = None
    try:
        with tarfile.open(fileobj=payload, mode="r:") as archive:
            members = [member for member in archive.getmembers() if member.isfile()]
            own = {Path(member.name).name for member in archive.getmembers()}
            names = {member.name.removeprefix("./") for member in members}
            if source.type == "app" and source.entry not in names:
                raise BuildError(
                    f"app {source.name}: its program {source.entry!r} is not in {source.file}; name one with "
                    "--entry NAME=PATH"
                )
            for member in members:
                content = archive.extractfile(member)
                if content is None:
                    continue
                with cast("BinaryIO", content) as stream:
                    if not is_elf(stream):
                        continue
                    name = member.name.removeprefix("./")
                    facts = _check_elf(stream, f"{source.name}: {name}", options, own)
                    entry_facts = facts if name == source.entry else entry_facts
    except tarfile.TarError as error:
        raise BuildError(f"{source.file}: is a damaged tar ({error}); pack it again") from error
    return entry_facts


def read_libraries(path: Path) -> frozenset[str]:
    """Return the library names in a text file, one a line; blank lines and `#` comments are passed over."""
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8").splitlines())
    return frozenset(Path(line).name for line in lines if line)
