"""The rim of the D-Bus door: the only file that knows GLib and pydbus.

GLib's main loop has the process's main thread, the service lives in an asyncio loop of a thread beside it. Calls go over to
that loop, and their answers come back: pydbus itself would answer one call after the other and hold up signals meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from gi.repository import Gio, GLib
from pydbus import SystemBus
from pydbus.generic import signal
from pydbus.registration import ObjectRegistration, ObjectWrapper

from zentrid.dbus.interface import ERROR, METHODS, NAME, PATH, PROPERTIES, introspection
from zentrid.dbus.model import Completion, Properties, Slot
from zentrid.dbus.service import CallError, Service

log = logging.getLogger(__name__)

_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_FIELDS: Final = {
    "version": "Version", "state": "State", "progress": "Progress", "available": "Available", "slots": "Slots",
    "boot_good": "BootGood", "safe_mode": "SafeMode", "faults": "Faults",
}  # fmt: skip


def _slot(slot: Slot) -> tuple[str, dict[str, Any]]:
    return slot.name, {
        "version": GLib.Variant("s", slot.version),
        "state": GLib.Variant("s", slot.state),
        "tries": GLib.Variant("i", slot.tries),
        "good": GLib.Variant("b", slot.good),
        "running": GLib.Variant("b", slot.running),
    }


def values(now: Properties) -> dict[str, Any]:
    """Return all properties by their names, as pydbus turns them into variants."""
    found: dict[str, Any] = {name: getattr(now, field) for field, name in _FIELDS.items()}
    found["Progress"] = (now.progress.percent, now.progress.message, now.progress.depth)
    found["Slots"] = [_slot(slot) for slot in now.slots]
    found["Faults"] = list(now.faults)
    return found


class Exported:
    """What pydbus takes its signals from. Signals go out in GLib's thread, in the order in which they came."""

    PropertiesChanged = signal()
    Completed = signal()

    def changed(self, now: Properties, names: tuple[str, ...]) -> None:
        """Signal properties that have changed."""
        told = values(now)
        some = {_FIELDS[name]: told[_FIELDS[name]] for name in names}
        _in_main_thread(lambda: self.PropertiesChanged(NAME, some, []))

    def completed(self, ending: Completion) -> None:
        """Signal the end of an update."""
        _in_main_thread(lambda: self.Completed(ending.code, ending.message))


class _Parameters(Protocol):
    """Of GLib: the arguments of a call."""

    def unpack(self) -> tuple[Any, ...]:
        """Return them as Python has them."""


class _Invocation(Protocol):
    """Of GLib: a call that waits for its answer."""

    def return_value(self, value: object) -> None:
        """Answer with a tuple variant, or None for nothing."""

    def return_dbus_error(self, name: str, sentence: str) -> None:
        """Answer with an error."""


class Wrapper(ObjectWrapper):  # type: ignore[misc]  # pydbus has no types
    """Hands calls to the service and answers when it has answered."""

    def __init__(
        self, exported: Exported, interfaces: list[Any], service: Service, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__(exported, interfaces)
        self._service = service
        self._loop = loop
        self._gives = {m.name: "(" + "".join(a.signature for a in m.gives) + ")" for m in METHODS}
        self._types = {p.name: p.signature for p in PROPERTIES}

    def call_method(
        self, _connection: object, _sender: str, _path: str, interface: str, method: str,
        parameters: _Parameters, invocation: _Invocation,
    ) -> None:  # fmt: skip
        """Take a call; GLib has checked that the interface declares it with these arguments."""
        arguments = parameters.unpack()
        work = self._property(method, arguments) if interface == _PROPERTIES else self._method(method, arguments)
        asyncio.run_coroutine_threadsafe(self._answer(work, invocation), self._loop)

    async def _method(self, method: str, arguments: tuple[Any, ...]) -> object:
        result = await self._service.call(method, arguments)
        return GLib.Variant(self._gives[method], result) if result else None

    async def _property(self, method: str, arguments: tuple[Any, ...]) -> object:
        told = values(await self._service.fresh())
        if method == "GetAll":
            return GLib.Variant("(a{sv})", ({n: GLib.Variant(t, told[n]) for n, t in self._types.items()},))
        if method == "Get":
            name = arguments[1]
            return GLib.Variant("(v)", (GLib.Variant(self._types[name], told[name]),))
        raise CallError("InvalidArguments", "The properties are read-only; use the methods.")

    async def _answer(self, work: Coroutine[Any, Any, object], invocation: _Invocation) -> None:
        try:
            value = await work
        except CallError as error:
            name, sentence = f"{ERROR}.{error.reason}", str(error)
        except Exception as error:
            log.exception("a call failed inside the device")
            name, sentence = f"{ERROR}.Failed", f"It failed inside the device ({type(error).__name__})."
        else:
            _in_main_thread(lambda: invocation.return_value(value))
            return
        _in_main_thread(lambda: invocation.return_dbus_error(name, sentence))


def _in_main_thread(work: Callable[[], object]) -> None:
    def once() -> bool:
        work()
        return False

    GLib.idle_add(once, priority=GLib.PRIORITY_DEFAULT)


def serve(make: Callable[[Exported], Service]) -> None:
    """Publish the object on the system bus and serve until the bus is gone. Raises GLib.Error when it cannot be published."""
    main, exported = GLib.MainLoop(), Exported()
    loop = asyncio.new_event_loop()
    bus = SystemBus()
    service = make(exported)
    node = Gio.DBusNodeInfo.new_for_xml(introspection())
    wrapper = Wrapper(exported, node.interfaces, service, loop)
    registration = ObjectRegistration(bus, PATH, node.interfaces, wrapper, own_wrapper=True)
    bus.con.set_exit_on_close(False)
    bus.con.connect("closed", lambda *_: main.quit())
    failed: list[BaseException] = []

    def follow() -> None:
        try:
            loop.run_until_complete(service.run())
        except BaseException as error:  # whatever it is, a door that does not follow the device must not stay open
            failed.append(error)
        finally:
            _in_main_thread(main.quit)

    threading.Thread(target=follow, name="service", daemon=True).start()
    with registration, bus.request_name(NAME):
        main.run()
    if failed:
        raise failed[0]
