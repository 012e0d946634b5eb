"""Every variable of the device, declared once: name, short name, type and range, default, rules, meaning.

Another variable is one more declaration here, and a getter in `zentrid/commands/getters.py` if it is dynamic.
"""

from __future__ import annotations

from typing import Final

from zentrid.core.names import GPIO_FACTORY_RESET, GPIO_LED, GPIO_LINES
from zentrid.core.network import HostAddress, Netmask
from zentrid.core.schedule import WindowsKind
from zentrid.core.variables import Bool, Choice, Int, Text, Variable, VariableTable, fact

_HOST: Final = r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?"
_KEY: Final = (
    r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-ssh-ed25519@openssh\.com) [A-Za-z0-9+/]{16,1400}={0,3}"
    r"( [A-Za-z0-9@._+-]{1,64})?"
)

_SYSTEM: Final = (
    fact("system.version", "sy v", "product, version, build time, Zentri version and board, as `version` prints them"),
    fact("system.uuid", "sy u", "the device's own UUID, written in manufacture"),
    fact("system.uptime", "sy up", "seconds since the board started"),
    fact("system.utc", "sy t", "time now, UTC, ISO 8601"),
    fact("system.memory", "sy m", "bytes of memory that are available"),
    fact("system.build", "sy bu", "when the running release was built, UTC"),
    fact("system.safemode.status", "sy s s", "1 in safe mode, else 0"),
    fact("system.boot.slot", "sy b s", "the slot that runs: a, b, or r for the safe-mode system"),
    fact("system.boot.good", "sy b g", "1 when this boot was marked good, else 0"),
    fact("system.boot.health", "sy b he", "what this boot still waits for, or that it is good"),
    fact("system.fault.count", "sy f c", "faults counted; eight lead to safe mode"),
    Variable(
        "system.fault.decay", "sy f d", Int(0, 31_536_000, "s"), 86_400,
        "faults are forgotten after so long of uninterrupted healthy running; 0: never", "86400",
    ),
    Variable(
        "system.boot.app", "sy b a", Text(200, r"[^\x00-\x1f\x7f]*", "an application's name or a path, with arguments"), "",
        "the boot application: a package's name or an absolute path, and its arguments; empty: none",
        '"sample-arm --interval 1"', safe_mode=False,
    ),
    Variable(
        "system.app.memory", "sy a m", Int(8, 384, "MiB"), 96, "the most memory the boot application may use", "64",
        safe_mode=False,
    ),
    Variable(
        "system.app.files", "sy a f", Int(16, 4096), 256, "the most files the boot application may have open", "64",
        safe_mode=False,
    ),
    Variable(
        "system.factory_reset.gpio", "sy r g", Int(0, 0), 0, "the factory reset pin; always GPIO 0",
        writable=False, saved=False, factory_reset=False,
    ),
    Variable("system.name", "sy n", Text(64), "", "a name for this device, for people", "boiler-room"),
    Variable(
        "system.boot.healthy_after", "sy b h", Int(0, 600, "s"), 10,
        "so long everything must hold without a break before the boot counts as good", "10", safe_mode=False,
    ),
    Variable(
        "system.boot.deadline", "sy b d", Int(20, 3600, "s"), 120,
        "a first boot after an update must be healthy within this time, else the board restarts", "180",
    ),
    Variable(
        "system.watchdog.timeout", "sy w t", Int(15, 120, "s"), 30,
        "the hardware watchdog restarts the board after so long without a sign of life", "30",
    ),
    Variable(
        "system.print_level", "sy p", Choice(("none", "error", "all")), "all",
        "which log text accompanies answers: none, only reasons of failures, or all", "error", session=True,
    ),
    Variable("system.cmd.echo", "sy c e", Bool(), True, "send typed characters back", "0", session=True),
    Variable("system.cmd.prompt_enabled", "sy c p", Bool(), True, "print a prompt", "0", session=True),
    Variable(
        "system.cmd.header_enabled", "sy c h", Bool(), False, "put a header before each answer", "1", session=True
    ),
    Variable(
        "system.cmd.buffered", "sy c b", Bool(), False, "send log text together with the answer, not at once", "1",
        session=True,
    ),
    Variable(
        "system.cmd.format", "sy c f", Choice(("human", "machine")), "human",
        "human: echo, prompt, no headers; machine: no echo, no prompt, headers. Setting it sets those three",
        "machine", session=True, aliases=("system.cmd.mode", "sy c m"),
    ),
)  # fmt: skip

_DMS: Final = (
    Variable(
        "dms.host", "dm h", Text(253, _HOST, "a host name or address, or empty"), "",
        "the Device Management Server; empty: the one from manufacture", "dms.example.com", dynamic=True,
    ),
    Variable(
        "dms.port", "dm p", Int(0, 65_535), 0, "its port; 0: the one from manufacture", "8443", dynamic=True
    ),
    Variable(
        "dms.interval", "dm i", Int(10, 86_400, "s"), 300,
        "how often the DMS is asked whether it wants something, and whether there is an update (dms.auto)",
        "300",
    ),
    Variable(
        "dms.cmd.enabled", "dm c e", Bool(), True, "the device's owner may ask for a factory reset through the DMS", "0",
    ),
    Variable(
        "dms.auto", "dm a", Choice(("off", "check", "install")), "off",
        "off: only a person updates; check: look for an update at each dms.interval; install: install it too",
        "install",
    ),
    Variable(
        "dms.window", "dm w", WindowsKind(), "",
        "when dms.auto installs and restarts, in UTC: days if not every day, then begin and end; empty: always",
        '"mon-fri 22:00-04:00; sat,sun 01:00-05:00"',
    ),
    fact("dms.claimed", "dm cl", "1 if somebody has claimed this device, as the DMS last said"),
    fact("dms.product", "dm r", "the product this device is bound to, as the DMS last said"),
    fact("dms.tag", "dm t", "which releases this device gets, as the DMS last said"),
    fact("dms.bundle_id", "dm b", "product and version of the running release"),
    fact(
        "dms.ota_result", "dm o",
        "the last update: 0 none, 1 updated, 2 no update required, 3 general failure, 4 no network set, 5 join failed, "
        "6 cannot reach DMS, 7, 8, 9 the DMS answered 403, 400, 404",
    ),
)  # fmt: skip

_OTA: Final = (
    fact("ota.state", "ot s", "the update's state now"),
    fact("ota.progress", "ot p", "percent of the running update"),
    fact("ota.bytes", "ot b", "bytes received by the running or last update"),
    fact("ota.available", "ot a", "the release that was found but not installed yet; empty: none"),
    Variable(
        "ota.reboot", "ot r", Choice(("auto", "manual")), "auto",
        "restart into a new release by itself, or wait for `reboot`", "manual",
    ),
    Variable(
        "ota.commit.offline", "ot c o", Bool(), False,
        "a new release may become good without having reached the DMS", "1",
    ),
    Variable(
        "ota.rate_limit", "ot l", Int(0, 1_000_000, "KiB/s"), 0, "the fastest an update may download; 0: no limit",
        "512",
    ),
    Variable(
        "ota.upload.port", "ot u p", Int(1, 65_535), 8080, "where `ota upload` lets a bundle be sent to", "8080"
    ),
    Variable(
        "ota.budget", "ot bu", Int(0, 65_536, "MiB"), 0,
        "the most that one update may download, also over several attempts; 0: no limit", "40",
    ),
)  # fmt: skip

_NETWORK: Final = (
    fact("network.ip", "ne i", "the address in use; network.static.ip sets a fixed one"),
    fact("network.netmask", "ne n", "the network mask in use"),
    fact("network.gateway", "ne g", "the gateway in use"),
    fact("network.dns", "ne s", "the name server in use"),
    fact("network.mac", "ne m", "the MAC address, written in manufacture"),
    fact("network.status", "ne u", "`up`, or why there is no network"),
    Variable(
        "network.default_interface", "ne f", Choice(("ethernet", "wlan")), "ethernet",
        "what the device joins; on a board without a radio its Ethernet stands for it. Takes effect with network_restart",
        "wlan",
    ),
    Variable(
        "network.dhcp", "ne d", Bool(), True,
        "1: ask a DHCP server for an address; 0: use network.static. Takes effect with network_restart", "0",
    ),
    Variable("network.static.ip", "ne st i", HostAddress(), "", "the fixed address, for network.dhcp 0", "192.168.1.20"),
    Variable("network.static.netmask", "ne st n", Netmask(), "255.255.255.0", "its network mask", "255.255.255.0"),
    Variable("network.static.gateway", "ne st g", HostAddress(), "", "its gateway; empty: none", "192.168.1.1"),
    Variable("network.static.dns", "ne st d", HostAddress(), "", "its name server; empty: none", "192.168.1.1"),
)  # fmt: skip

_WLAN: Final = (
    fact("wlan.mac", "wl m", "the radio's MAC address; on a board without a radio that of its Ethernet"),
    Variable(
        "wlan.ssid", "wl s", Text(32, meaning="the name of a network"), "",
        "the network to join, for network.default_interface wlan", '"my network"',
    ),
    Variable(
        "wlan.password", "wl p", Text(64, r"[ -~]{8,63}|[0-9A-Fa-f]{64}", "8 to 63 characters, or a key of 64 digits"), "",
        "the password of that network; empty: an open one", '"a long password"', secret=True,
    ),
)  # fmt: skip

_LEVELS: Final = ("none", "in", "low", "high")
_GPIO: Final = (
    fact("gpio.state", "gp s", "the level of every GPIO, as number:level", safe_mode=False),
    *(
        Variable(
            f"gpio.init.{pin}", f"gp i {pin}", Choice(("none", "low", "high") if pin == GPIO_LED else _LEVELS), "none",
            f"what GPIO {pin} begins as: left alone, an input, or an output that is low or high"
            + {GPIO_FACTORY_RESET: "; it stays the factory reset button, which comes first", GPIO_LED: "; it is the lamp"}
            .get(pin, ""),
            "high", safe_mode=False, aliases=(f"gpio.init {pin}",),
        )
        for pin in range(GPIO_LINES)
    ),
)  # fmt: skip

_SSH: Final = (
    Variable("ssh.enabled", "ss e", Bool(), True, "allow logins by SSH (keys only)", "0"),
    Variable(
        "ssh.authorized_keys", "ss a",
        Text(1800, rf"{_KEY}(;{_KEY}){{0,15}}", "public keys as in an authorized_keys file, separated by ;"), "",
        "who may log in by SSH, besides the keys from manufacture", '"ssh-ed25519 AAAAC3Nza... me@desk"',
    ),
)  # fmt: skip

_FILE: Final = r"[A-Za-z0-9_+@=~-][A-Za-z0-9._+@=~-]*(/[A-Za-z0-9_+@=~-][A-Za-z0-9._+@=~-]*){0,7}"
_ORIGIN: Final = rf"https?://{_HOST}(:[0-9]{{1,5}})?"

_HTTP: Final = (
    Variable("http.server.enabled", "ht s e", Bool(), True, "serve the Web App and the command interface", "0"),
    Variable(
        "http.server.api_enabled", "ht s a", Bool(), True,
        "obey commands that come by HTTP and WebSocket; 0: only files are served", "0",
    ),
    Variable(
        "http.server.port", "ht s p", Int(0, 65_535), 0,
        "where it listens; 0: port 80, with TLS port 443", "8080", dynamic=True,
    ),
    Variable(
        "http.server.interface", "ht s i", Choice(("all", "wlan", "local")), "all",
        "who can reach it: all, only the network interface's side, or only programs on the device itself", "wlan",
    ),
    Variable(
        "http.server.root_filename", "ht s r", Text(200, _FILE, "a file's name, with folders"), "webapp/index.html",
        "the Web App's first page; the files of its folder are served", "webapp/index.html",
    ),
    Variable(
        "http.server.inline_enabled", "ht s l", Bool(), False,
        "1: pages of the Web App may hold scripts and styles themselves; for a Web App of your own that needs it", "1",
    ),
    Variable(
        "http.server.username", "ht s u", Text(32, r"[^:]*", "text without a colon"), "",
        "who may come in; until it and the password are set, the device answers to its own network only", "admin",
    ),
    Variable(
        "http.server.password", "ht s w", Text(64), "", "the password that goes with the user name", '"a long one"',
        secret=True,
    ),
    Variable(
        "http.server.tls_enabled", "ht s t", Bool(), False, "serve HTTPS, with the device's own certificate", "1"
    ),
    Variable(
        "http.server.hostname", "ht s h", Text(300, rf"{_HOST}( {_HOST}){{0,3}}", "up to 4 host names"), "",
        "names that browsers reach the device by, besides its addresses", "boiler.example.com",
    ),
    Variable(
        "http.server.cors_origin", "ht s c", Text(300, rf"{_ORIGIN}( {_ORIGIN}){{0,3}}", "up to 4 origins"), "",
        "other sites whose pages may command the device, as http://host:port; empty: none", "https://app.example.com",
    ),
    Variable(
        "remote_terminal.enabled", "re e", Bool(), False, "the command line over TCP, without encryption", "1"
    ),
    Variable("remote_terminal.port", "re p", Int(1, 65_535), 2000, "where it listens", "2323"),
    Variable(
        "setup.web.root_filename", "se w r", Text(200, _FILE, "a file's name below the Web App's folder"), "",
        "the first page in set-up mode; empty: the one of the image", "setup.html",
    ),
    Variable(
        "setup.web.timeout", "se w t", Int(60, 86_400, "s"), 900, "so long after its begin set-up mode ends", "600"
    ),
)  # fmt: skip

VARIABLES: Final = VariableTable((*_SYSTEM, *_DMS, *_OTA, *_NETWORK, *_WLAN, *_GPIO, *_SSH, *_HTTP))
