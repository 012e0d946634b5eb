"""All tables in one place, for migrations and for the test that models and migrations agree."""

from dms_server.accounts.models import ApiToken, Guess, User, WebSession
from dms_server.bundles.models import Bundle, BundleItem, BundleTag
from dms_server.commands.models import DeviceCommand
from dms_server.db import Base
from dms_server.devices.models import Device, Report
from dms_server.faults.models import Fault, SymbolRow
from dms_server.patches.models import Patch
from dms_server.products.models import ClaimToken, Product

__all__ = [
    "ApiToken",
    "Base",
    "Bundle",
    "BundleItem",
    "BundleTag",
    "ClaimToken",
    "Device",
    "DeviceCommand",
    "Fault",
    "Guess",
    "Patch",
    "Product",
    "Report",
    "SymbolRow",
    "User",
    "WebSession",
]
