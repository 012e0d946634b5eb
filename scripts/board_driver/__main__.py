"""Makes `python -m scripts.board_driver` the same as `scripts/board`."""

from scripts.board_driver.cli import main

main()
