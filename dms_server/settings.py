"""Settings: defaults, then one TOML file, then environment variables `ZENTRI_DMS_<NAME>`, then the command line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dms_server.errors import SetupError

ENV_PREFIX = "ZENTRI_DMS_"
MIB = 1024 * 1024


class Settings(BaseModel):
    """Everything that an operator may set. Times are seconds, sizes are bytes; port 0 lets the system choose."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path
    """The folder for the database, payloads and online metadata."""
    fleet: Path
    """The fleet folder; the server reads `online/` and `public/` of it and needs nothing of `offline/`."""
    bind: str = "127.0.0.1"
    device_port: int = Field(default=8443, ge=0, le=65535)
    web_port: int = Field(default=8080, ge=0, le=65535)
    database_url: str = ""
    """An SQLAlchemy address; empty: SQLite in the data folder."""
    public_url: str = ""
    """Where people reach the web door (for links in messages); with https the session cookie is marked secure."""
    signup_open: bool = True
    confirm_email: bool = True
    """A new account must confirm its e-mail address before it can change anything."""
    session_lifetime_s: int = Field(default=14 * 86400, ge=300, le=90 * 86400)
    timestamp_lifetime_s: int = Field(default=86400, ge=2, le=30 * 86400)
    snapshot_lifetime_s: int = Field(default=7 * 86400, ge=2, le=90 * 86400)
    resign_interval_s: float = Field(default=60.0, gt=0, le=3600)
    bundle_max_bytes: int = Field(default=512 * MIB, ge=1, le=4096 * MIB)
    symbols_max_bytes: int = Field(default=32 * MIB, ge=1, le=1024 * MIB)
    symbols_account_max_bytes: int = Field(default=4096 * MIB, ge=1)
    """All symbol files of one account together."""
    patch_workers: int = Field(default=1, ge=0, le=16)
    """Processes that make patches at a time; 0: none are made."""
    patch_releases: int = Field(default=3, ge=0, le=50)
    """From how many earlier releases patches are made when a bundle is published; from others when a device asks."""
    patch_cache_max_bytes: int = Field(default=8192 * MIB, ge=0)
    """All patches together. Those to bundles without a tag go first, those served least recently first."""
    patch_memory_max_bytes: int = Field(default=1024 * MIB, ge=16 * MIB)
    """Address space of one process that makes a patch."""
    patch_time_max_s: int = Field(default=900, ge=1, le=86400)
    """Time for one patch."""
    patch_temporary_max_bytes: int = Field(default=8192 * MIB, ge=1)
    """Plain payloads, base and target together, that one process may lay out in the data folder."""
    patch_wait_max_s: float = Field(default=120.0, ge=0, le=3600)
    """How long devices are asked to wait for a patch; then they get the full payload."""
    patch_queue_max: int = Field(default=1000, ge=0, le=100_000)
    patch_device_queue_max: int = Field(default=4, ge=0, le=1000)
    """Patches that one device may have waiting in the queue."""
    patch_tries_max: int = Field(default=3, ge=1, le=100)
    patch_retry_s: float = Field(default=30.0, ge=0, le=86400)
    """The pause after a failed try; doubles with each further one."""
    json_max_bytes: int = Field(default=64 * 1024, ge=1024, le=MIB)
    guess_delay_s: float = Field(default=0.5, ge=0, le=10)
    """The pause after a wrong password; doubles with each further one, up to sixteen times."""
    guess_limit: int = Field(default=10, ge=1, le=1000)
    """Wrong passwords from one place before it has to wait `guess_window_s`."""
    guess_window_s: int = Field(default=900, ge=1, le=86400)
    sighting_flush_s: float = Field(default=1.0, gt=0, le=60)
    """How long last-seen times may stay in memory before they are written."""
    shutdown_s: float = Field(default=10.0, ge=0, le=300)

    @property
    def effective_database_url(self) -> str:
        """The database address in use."""
        return self.database_url or f"sqlite:///{self.data / 'dms.sqlite3'}"

    @property
    def secure_cookies(self) -> bool:
        """True when people come by https, so that cookies must never travel without it."""
        return self.public_url.startswith("https://")


def load_settings(
    overrides: Mapping[str, object], *, file: Path | None = None, environment: Mapping[str, str] | None = None
) -> Settings:
    """Return the settings from all sources; the later source wins.

    Raises SetupError naming the setting when a value is unknown, missing or out of range.
    """
    values: dict[str, object] = {}
    if file is not None:
        try:
            values.update(tomllib.loads(file.read_text("utf-8")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SetupError(f"settings file {file} cannot be read: {error}; correct it or leave it out") from error
    source = os.environ if environment is None else environment
    for name, text in source.items():
        if name.startswith(ENV_PREFIX):
            values[name.removeprefix(ENV_PREFIX).lower()] = text
    values.update({name: value for name, value in overrides.items() if value is not None})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SetupError(f"setting `{name}`: {first['msg']}; correct the file, environment or option") from error
