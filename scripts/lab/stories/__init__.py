"""The stories of `make demo`, by name."""

from __future__ import annotations

from typing import Final

from scripts.lab.stories.base import Story
from scripts.lab.stories.factory_reset import FactoryResetStory
from scripts.lab.stories.safe_mode import SafeModeStory
from scripts.lab.stories.update import UpdateStory

STORIES: Final[dict[str, type[Story]]] = {
    "update": UpdateStory,
    "safe-mode": SafeModeStory,
    "factory-reset": FactoryResetStory,
}
