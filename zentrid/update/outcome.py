"""The update manager, as the supervision of a boot sees it."""

from __future__ import annotations

from zentrid.update.manager import UpdateManager


class UpdateOutcome:
    """The update manager, in the words of the supervisor."""

    def __init__(self, manager: UpdateManager) -> None:
        self._manager = manager

    @property
    def first_boot(self) -> bool:
        """This is the first boot of a release that was just installed."""
        return self._manager.first_boot

    @property
    def on_trial(self) -> bool:
        """The running slot was never good since it was installed."""
        return self._manager.on_trial

    @property
    def dms_reached(self) -> bool:
        """The DMS answered at least once since this boot."""
        return self._manager.dms.reached

    async def on_healthy(self) -> None:
        """Mark this boot good. Raises BootStateWriteError."""
        await self._manager.on_healthy()

    async def on_unhealthy(self, reason: str) -> None:
        """Record why this boot is given up."""
        await self._manager.on_unhealthy(reason)
