"""The manifest of a release: what it is, where it may be installed, and the root hash of every payload.

Its bytes are the TUF target that the product's release key signs. There is one way to write a manifest: JSON with
sorted keys, without blanks, in UTF-8; all else is refused, so that two readers cannot understand one text differently.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Final, Literal, NoReturn, get_args

from zentrid.bundle.fields import Fields
from zentrid.bundle.tree import HASH_BYTES, MAX_PAYLOAD_BYTES
from zentrid.core.version import Version
from zentrid.errors import ZentriError

MANIFEST_FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 256 * 1024
MAX_ITEMS: Final = 128
MAX_REMOVALS: Final = 64
MAX_NOTES_CHARS: Final = 16 * 1024
MAX_BOARDS: Final = 16
MAX_NEEDED: Final = 128
MAX_PATH_CHARS: Final = 200

ItemType = Literal["kernel", "rootfs", "app", "file"]
"""`kernel` is a FIT, `rootfs` an EROFS image; `app` and `file` go to the data partition."""

RelroLevel = Literal["full", "partial", "none"]
RELRO_LEVELS: Final[tuple[RelroLevel, ...]] = get_args(RelroLevel)

ITEM_TYPES: Final[tuple[ItemType, ...]] = get_args(ItemType)
SLOT_TYPES: Final[tuple[ItemType, ...]] = ("kernel", "rootfs")
DATA_TYPES: Final[tuple[ItemType, ...]] = ("app", "file")

PRODUCT_PATTERN: Final = re.compile(r"[A-Z0-9]{2,16}-[A-Z0-9]{2,16}_[A-Z0-9]{2,32}", re.ASCII)
BOARD_PATTERN: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}", re.ASCII)
ITEM_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_PATH_PATTERN = re.compile(r"[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*", re.ASCII)
_HEX_HASH_PATTERN = re.compile(rf"[0-9a-f]{{{2 * HASH_BYTES}}}", re.ASCII)
_BUILD_ID_PATTERN = re.compile(r"([0-9a-f]{2}){1,64}", re.ASCII)
_LIBRARY_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", re.ASCII)
_WORD_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,31}", re.ASCII)


class ManifestError(ZentriError, ValueError):
    """A manifest that is not to be used; `field` says where (dotted, empty for the whole), `problem` what."""

    reason = "bad_manifest"

    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem
        where = f"manifest, {field}" if field else "manifest"
        super().__init__(f"{where}: {problem}; build the bundle again with scripts/bundle")


@dataclass(frozen=True)
class ElfFacts:
    """What was found in an ELF file when the bundle was built."""

    machine: str
    """As pyelftools and readelf name it, without the prefix: `AARCH64`."""
    needed: tuple[str, ...]
    """Libraries (DT_NEEDED), in the file's order."""
    build_id: str | None
    """GNU build-id, lower-case hexadecimal; None if the file has none."""
    pie: bool
    relro: RelroLevel
    nx: bool

    def to_json(self) -> dict[str, object]:
        """Return the JSON object that stands for these facts."""
        return {
            "machine": self.machine,
            "needed": list(self.needed),
            "build_id": self.build_id,
            "pie": self.pie,
            "relro": self.relro,
            "nx": self.nx,
        }


@dataclass(frozen=True)
class Item:
    """One payload of a release."""

    type: ItemType
    name: str
    size_bytes: int
    """The true size; the tree covers it filled with zeros up to whole blocks. `size` in JSON."""
    root_hash: str
    """Root of the payload's hash tree, 64 lower-case hexadecimal digits."""
    version: Version | None = None
    """Of apps and files, where they have one of their own."""
    entry: str | None = None
    """Of an app: the program to start, relative to the app's folder."""
    path: str | None = None
    """Of a file: where it goes, relative to the device's folder for bundle files."""
    kind: str | None = None
    """Of apps and files: `elf`, `tar`, `data`, or another word that the product gives a meaning to."""
    elf: ElfFacts | None = None

    def to_json(self) -> dict[str, object]:
        """Return the JSON object that stands for this item; what is absent is left out."""
        entry: dict[str, object] = {
            "type": self.type,
            "name": self.name,
            "size": self.size_bytes,
            "root_hash": self.root_hash,
        }
        optional = {
            "version": None if self.version is None else str(self.version),
            "entry": self.entry,
            "path": self.path,
            "kind": self.kind,
            "elf": None if self.elf is None else self.elf.to_json(),
        }
        return entry | {key: value for key, value in optional.items() if value is not None}


@dataclass(frozen=True)
class Removal:
    """An application or a file that an earlier release brought and this one takes away. One that is not there is no error."""

    type: ItemType
    name: str


@dataclass(frozen=True)
class Manifest:
    """One release of one product. Checked when made: an instance is valid, else ManifestError is raised."""

    product: str
    version: Version
    compatible: tuple[str, ...]
    """Names of the boards that may run it; at least one."""
    items: tuple[Item, ...]
    min_version: Version | None = None
    """A device must run at least this version to install it."""
    boot_floor: Version | None = None
    """Once this release is healthy, slots with a version below this one do not boot any more."""
    allow_downgrade_to: Version | None = None
    """The signer allows devices with an install floor above `version` to come back, down to this version."""
    notes: str = ""
    remove: tuple[Removal, ...] = ()
    """Everything else that an earlier release brought stays."""

    def __post_init__(self) -> None:
        _check(self)

    def item(self, item_type: ItemType) -> Item | None:
        """Return the first item of a type (the only one, for `kernel` and `rootfs`); None if there is none."""
        return next((item for item in self.items if item.type == item_type), None)

    @property
    def has_firmware(self) -> bool:
        """Whether it holds anything for a slot; else only applications and files change."""
        return any(item.type in SLOT_TYPES for item in self.items)

    @property
    def payloads(self) -> dict[str, Item]:
        """The first item with each root hash, in order: equal payloads are stored and sent once."""
        found: dict[str, Item] = {}
        for item in self.items:
            found.setdefault(item.root_hash, item)
        return found

    @property
    def target_path(self) -> str:
        """The path of the TUF target: `<PRODUCT>/<version>/manifest.json`."""
        return f"{self.product}/{self.version}/manifest.json"

    def to_json(self) -> dict[str, object]:
        """Return the JSON object that stands for this manifest; `remove` is left out when it is empty."""
        document: dict[str, object] = {
            "format": MANIFEST_FORMAT,
            "product": self.product,
            "version": str(self.version),
            "compatible": list(self.compatible),
            "min_version": _text_or_none(self.min_version),
            "boot_floor": _text_or_none(self.boot_floor),
            "allow_downgrade_to": _text_or_none(self.allow_downgrade_to),
            "notes": self.notes,
            "items": [item.to_json() for item in self.items],
        }
        return document | ({"remove": [asdict(removal) for removal in self.remove]} if self.remove else {})

    def to_bytes(self) -> bytes:
        """Return the one way to write this manifest: what is signed and hashed."""
        return canonical_json(self.to_json())


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys, without blanks, in UTF-8. Raises ValueError for what has no such form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def _text_or_none(version: Version | None) -> str | None:
    return None if version is None else str(version)


# --- what holds for every manifest ----------------------------------------------------------------------------------


def _check(manifest: Manifest) -> None:
    _require(PRODUCT_PATTERN.fullmatch(manifest.product), "product", "is no product code like DEMO-VIRT_SENSOR")
    _require(1 <= len(manifest.compatible) <= MAX_BOARDS, "compatible", f"must name 1 to {MAX_BOARDS} boards")
    _require(len(set(manifest.compatible)) == len(manifest.compatible), "compatible", "names a board twice")
    for board in manifest.compatible:
        _require(BOARD_PATTERN.fullmatch(board), "compatible", f"{board[:40]!r} is no board name")
    for field in ("min_version", "boot_floor", "allow_downgrade_to"):
        limit: Version | None = getattr(manifest, field)
        _require(limit is None or limit <= manifest.version, field, "is above the release's own version")
    _require(len(manifest.notes) <= MAX_NOTES_CHARS, "notes", f"are longer than {MAX_NOTES_CHARS} characters")
    _require((not manifest.remove) <= len(manifest.items) <= MAX_ITEMS, "items", f"must be 1 to {MAX_ITEMS}")
    for index, item in enumerate(manifest.items):
        _check_item(item, f"items.{index}")
    for slot_type in SLOT_TYPES:
        count = sum(item.type == slot_type for item in manifest.items)
        _require(count <= 1, "items", f"has {count} of type {slot_type}, at most one is allowed")
    names = [(item.type, item.name) for item in manifest.items]
    _require(len(set(names)) == len(names), "items", "has two of the same type and name")
    paths = [item.path for item in manifest.items if item.path is not None]
    _require(len(set(paths)) == len(paths), "items", "has two files with the same path")
    _check_removals(manifest, names)
    # The floor is for slots: without firmware it could only take the running one away.
    _require(manifest.boot_floor is None or manifest.has_firmware, "boot_floor", "has no meaning without firmware")
    sizes = {item.root_hash: item.size_bytes for item in manifest.items}
    _require(
        all(sizes[item.root_hash] == item.size_bytes for item in manifest.items),
        "items",
        "has two with the same root hash but different sizes",
    )
    try:
        size_bytes = len(manifest.to_bytes())
    except UnicodeEncodeError:
        raise ManifestError("notes", "hold a character that UTF-8 cannot write") from None
    _require(size_bytes <= MAX_MANIFEST_BYTES, "", f"is {size_bytes} bytes long, the limit is {MAX_MANIFEST_BYTES}")


def _check_removals(manifest: Manifest, installed: list[tuple[ItemType, str]]) -> None:
    _require(len(manifest.remove) <= MAX_REMOVALS, "remove", f"has more than {MAX_REMOVALS} members")
    for index, removal in enumerate(manifest.remove):
        _require(removal.type in DATA_TYPES, f"remove.{index}.type", f"must be one of {', '.join(DATA_TYPES)}")
        _check_name(removal.name, f"remove.{index}.name")
    removed = {(removal.type, removal.name) for removal in manifest.remove}
    _require(len(removed) == len(manifest.remove), "remove", "names the same item twice")
    _require(not removed & set(installed), "remove", "names an item that the release installs")


def _check_item(item: Item, where: str) -> None:
    _require(item.type in ITEM_TYPES, f"{where}.type", f"must be one of {', '.join(ITEM_TYPES)}")
    _check_name(item.name, f"{where}.name")
    _require(0 <= item.size_bytes <= MAX_PAYLOAD_BYTES, f"{where}.size", f"must be 0 to {MAX_PAYLOAD_BYTES} bytes")
    _require(_HEX_HASH_PATTERN.fullmatch(item.root_hash), f"{where}.root_hash", "must be 64 lower-case hex digits")
    allowed: dict[str, tuple[ItemType, ...]] = {
        "version": DATA_TYPES,
        "kind": DATA_TYPES,
        "elf": DATA_TYPES,
        "entry": ("app",),
        "path": ("file",),
    }
    for field, types in allowed.items():
        given = getattr(item, field) is not None
        _require(not given or item.type in types, f"{where}.{field}", f"has no meaning for type {item.type}")
    _require(item.type != "file" or item.path is not None, f"{where}.path", "is missing")
    for field in ("entry", "path"):
        path: str | None = getattr(item, field)
        _require(path is None or is_safe_path(path), f"{where}.{field}", "must be a plain relative path without ..")
    _require(item.kind is None or _WORD_PATTERN.fullmatch(item.kind), f"{where}.kind", "must be one word")
    if item.elf is not None:
        _check_elf(item.elf, f"{where}.elf")


def _check_name(name: str, where: str) -> None:
    _require(ITEM_NAME_PATTERN.fullmatch(name), where, "must be 1 to 64 letters, digits, dots, - or _")


def _check_elf(elf: ElfFacts, where: str) -> None:
    _require(_WORD_PATTERN.fullmatch(elf.machine), f"{where}.machine", "must be one word")
    _require(len(elf.needed) <= MAX_NEEDED, f"{where}.needed", f"are more than {MAX_NEEDED} libraries")
    for library in elf.needed:
        _require(_LIBRARY_PATTERN.fullmatch(library), f"{where}.needed", f"{library[:40]!r} is no library name")
    _require(
        elf.build_id is None or _BUILD_ID_PATTERN.fullmatch(elf.build_id),
        f"{where}.build_id",
        "must be lower-case hexadecimal",
    )
    _require(elf.relro in RELRO_LEVELS, f"{where}.relro", "must be full, partial or none")


def is_safe_path(path: str) -> bool:
    """Tell whether `path` is relative, made of plain characters, and stays where it starts."""
    plain = len(path) <= MAX_PATH_CHARS and bool(_PATH_PATTERN.fullmatch(path))
    return plain and not {".", ".."} & set(path.split("/"))


def _require(condition: object, field: str, problem: str) -> None:
    if not condition:
        raise ManifestError(field, problem)


# --- reading --------------------------------------------------------------------------------------------------------


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest that `data` writes; raise ManifestError for anything but a valid, canonically written one."""
    _require(len(data) <= MAX_MANIFEST_BYTES, "", f"is {len(data)} bytes long, the limit is {MAX_MANIFEST_BYTES}")
    try:
        document = json.loads(data.decode("utf-8"), parse_float=_refuse_number, parse_constant=_refuse_number)
    except ManifestError:
        raise
    except (ValueError, RecursionError):
        raise ManifestError("", "is not JSON in UTF-8") from None
    manifest = _parse_document(Fields(document, "", ManifestError))
    _require(manifest.to_bytes() == data, "", "is not written canonically (sorted keys, no blanks, nothing twice)")
    return manifest


def _refuse_number(text: str) -> NoReturn:
    raise ManifestError("", f"holds the number {text[:20]}, only whole numbers are allowed")


def _parse_document(fields: Fields) -> Manifest:
    found = fields.whole_number("format")
    _require(found == MANIFEST_FORMAT, "format", f"is {found}, this software knows format {MANIFEST_FORMAT}")
    manifest = Manifest(
        product=fields.text("product"),
        version=fields.version("version"),
        compatible=fields.texts("compatible", MAX_BOARDS),
        min_version=_version_or_none(fields, "min_version"),
        boot_floor=_version_or_none(fields, "boot_floor"),
        allow_downgrade_to=_version_or_none(fields, "allow_downgrade_to"),
        notes=fields.text("notes"),
        items=tuple(
            _parse_item(Fields(entry, f"items.{index}", ManifestError))
            for index, entry in enumerate(fields.array("items", MAX_ITEMS))
        ),
        remove=_parse_removals(fields),
    )
    fields.require_all_used()
    return manifest


def _parse_removals(fields: Fields) -> tuple[Removal, ...]:
    removals: list[Removal] = []
    for index, entry in enumerate(fields.array("remove", MAX_REMOVALS) if fields.has("remove") else ()):
        found = Fields(entry, f"remove.{index}", ManifestError)
        removals.append(Removal(_item_type(found), found.text("name")))
        found.require_all_used()
    return tuple(removals)


def _item_type(fields: Fields) -> ItemType:
    text = fields.text("type")
    if (known := next((known for known in ITEM_TYPES if known == text), None)) is None:
        raise fields.fail("type", f"must be one of {', '.join(ITEM_TYPES)}")
    return known


def _version_or_none(fields: Fields, name: str) -> Version | None:
    return None if fields.null(name) else fields.version(name)


def _parse_item(fields: Fields) -> Item:
    item = Item(
        type=_item_type(fields),
        name=fields.text("name"),
        size_bytes=fields.whole_number("size"),
        root_hash=fields.text("root_hash"),
        version=fields.version("version") if fields.has("version") else None,
        entry=fields.text("entry") if fields.has("entry") else None,
        path=fields.text("path") if fields.has("path") else None,
        kind=fields.text("kind") if fields.has("kind") else None,
        elf=_parse_elf(fields) if fields.has("elf") else None,
    )
    fields.require_all_used()
    return item


def _parse_elf(parent: Fields) -> ElfFacts:
    fields = parent.object("elf")
    relro = fields.text("relro")
    if (level := next((known for known in RELRO_LEVELS if known == relro), None)) is None:
        raise fields.fail("relro", f"must be one of {', '.join(RELRO_LEVELS)}")
    facts = ElfFacts(
        machine=fields.text("machine"),
        needed=fields.texts("needed", MAX_NEEDED),
        build_id=None if fields.null("build_id") else fields.text("build_id"),
        pie=fields.flag("pie"),
        relro=level,
        nx=fields.flag("nx"),
    )
    fields.require_all_used()
    return facts
