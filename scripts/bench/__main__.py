"""`python -m scripts.bench`: measures updates by this engine and by others; prints tables, writes JSON and a chart."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from scripts.bench.boards import BenchError
from scripts.bench.chart import chart
from scripts.bench.engines import ENGINES
from scripts.bench.host import HOST_ENGINES
from scripts.bench.report import whole_markdown, whole_report
from scripts.bench.rows import Row, rows_from_json, rows_to_json
from scripts.bench.run import Run
from scripts.board_driver.errors import MachineError
from scripts.image.run import BuildError
from scripts.lab.places import TOP
from scripts.lab.run import Progress, end_as_by_ctrl_c
from scripts.lab.tools import LabError
from zentrid.errors import ZentriError

ALL_ENGINES = (*ENGINES, *HOST_ENGINES)


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--pairs", type=_names, default=[], metavar="NAME,…", help="only these pairs of releases")
    parser.add_argument(
        "--engines", type=_names, default=list(ALL_ENGINES), metavar="NAME,…",
        help=f"only these engines, of {', '.join(ALL_ENGINES)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=TOP / "bench", help="folder of the results (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON in place of the tables")
    parser.add_argument("--report", action="store_true", help="measure nothing: tables and chart anew from update.json")
    return parser


def write(rows: list[Row], out: Path) -> None:
    """Write `update.json`, `update.md` and `update.svg` into the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "update.json").write_text(rows_to_json(rows))
    (out / "update.md").write_text("# Results of `make bench-update`\n\n" + whole_markdown(rows))
    (out / "update.svg").write_text(chart(rows))


def _rows(options: argparse.Namespace, run: Run) -> list[Row]:
    if options.report:
        return rows_from_json((options.out / "update.json").read_text())
    if unknown := set(options.engines) - set(ALL_ENGINES):
        raise BenchError(f"there is no engine {', '.join(sorted(unknown))}; there are {', '.join(ALL_ENGINES)}")
    end_as_by_ctrl_c()
    return run.measure(run.pairs(options.pairs), options.engines)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 when everything was measured, 1 when something could not be."""
    options = _parser().parse_args(argv)
    run = Run(Progress())
    try:
        rows = _rows(options, run)
    except (BenchError, BuildError, LabError, MachineError, ZentriError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (OSError, subprocess.SubprocessError) as error:
        print(f"error: {error}; mend what it names, then run the same command again", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was measured is kept, run the same command again to go on", file=sys.stderr)
        return 130
    if rows:
        write(rows, options.out)
    print(rows_to_json(rows) if options.json else whole_report(rows), end="")
    for failure in run.failures:
        print(f"NOT MEASURED: {failure}", file=sys.stderr)
    return 1 if run.failures or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
