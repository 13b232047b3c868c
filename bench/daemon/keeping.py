"""Where the samples of a benchmark of the daemon go: JSON with the machine and the command, and a table beside it.

Owns: what stands around the cases.
Never: measures, or leaves a case out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.e2e.__main__ import OUTPUT, revision
from engine.lab.contest.machine import describe


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="")
    parser.add_argument("--output", type=Path, default=OUTPUT)


def keep(
    chosen: argparse.Namespace, kind: str, cases: Sequence[Any], markdown: Callable[[dict[str, Any], Any], str]
) -> tuple[Path, dict[str, Any]]:
    """The JSON file and its document; the table stands beside it. `kind` ends the file's name unless `chosen` has one."""
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    found = {
        "date": date,
        "machine": describe(),
        "version": revision(),
        "command": f"python -m {sys.modules['__main__'].__spec__.name} {shlex.join(sys.argv[1:])}".strip(),
        "cases": [asdict(case) for case in cases],
    }
    path = chosen.output / f"{chosen.name or f'{date}-{kind}'}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(found, cases))
    return path, found
