"""The demonstration set-up: one account, one product, one API token. Needs no running server."""

from __future__ import annotations

import json
import secrets

from dms_server.accounts.services import SCOPES
from dms_server.core import build_core, prepare_data
from dms_server.db import Database, migrate
from dms_server.errors import SetupError
from dms_server.files import write_durably
from dms_server.settings import Settings

DEMO_USER = "demo"
DEMO_PRODUCT = "DEMO-VIRT_SENSOR"


async def set_up_demo(settings: Settings) -> dict[str, str]:
    """Return (and write to `demo.json`, mode 0600) user, password, token and product; the same when called again.

    Raises SetupError when the account exists and its secrets were lost.
    """
    prepare_data(settings)
    path = settings.data / "demo.json"
    if path.exists():
        known: dict[str, str] = json.loads(path.read_text("utf-8"))
        return known
    await migrate(settings.effective_database_url)
    db = Database(settings.effective_database_url)
    try:
        core = build_core(settings, db)
        password = secrets.token_urlsafe(15)
        user_id = await core.accounts.sign_up(DEMO_USER, "demo@localhost", password, confirmed=True)
        await core.products.create(user_id, DEMO_PRODUCT, "Demonstration sensor on the virtual board")
        _, token = await core.accounts.new_api_token(user_id, "demo", SCOPES)
    except Exception as error:
        raise SetupError(
            f"the demonstration account cannot be made: {error}; begin again with an empty data folder"
        ) from error
    finally:
        await db.close()
    result = {"user": DEMO_USER, "password": password, "token": token, "product": DEMO_PRODUCT}
    write_durably(path, json.dumps(result, indent=2).encode() + b"\n", mode=0o600)
    return result
