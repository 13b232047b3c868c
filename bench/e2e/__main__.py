"""Runs suites and writes their report: JSON with every sample, a markdown table, plots.

python -m bench.e2e                        all suites, 10 rounds (about two hours)
python -m bench.e2e --quick overlay        a look
python -m bench.e2e peers                  what `make bench-peers` does
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from bench.e2e import report
from bench.e2e.matches import COUNTS, PROFILE_TITLES, PROFILES, SUITES, Session, Settings
from bench.e2e.workloads import WORKLOADS
from engine.errors import TowpathError
from engine.lab import owner, privilege
from engine.lab.contest.machine import describe
from engine.lab.keeping import Ended, signals_raise
from engine.version import version

OUTPUT = Path("docs/benchmarks")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.e2e", description="Towpath beside other tunnels, in turn.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)}; all when none is named")
    parser.add_argument("--pairs", type=int, help="rounds over all contenders (10)")
    parser.add_argument("--seconds", type=float, help="of one sample (2)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of half a second, growth not to its ends")
    parser.add_argument("--profiles", default="".join(PROFILES), help="underlays, letters of ABC (all)")
    parser.add_argument("--workloads", default="", help=f"some of the suites': {', '.join(WORKLOADS)}")
    parser.add_argument("--growth", default="", help="what grows and to what, like routes=1000000,pods=100 (all)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of the report ({OUTPUT})")
    parser.add_argument("--name", default="", help="of the report's files (<date>-e2e)")
    parser.add_argument("--no-plots", action="store_true", help="leave matplotlib alone")
    chosen = parser.parse_args()
    if unknown := [*(set(chosen.suites) - set(SUITES)), *(set(chosen.profiles) - set(PROFILES))]:
        parser.error(f"there is no suite or profile {', '.join(unknown)}")
    if unknown := set(filter(None, chosen.workloads.split(","))) - set(WORKLOADS):
        parser.error(f"there is no workload {', '.join(unknown)}")
    if unknown := {part.partition("=")[0] for part in filter(None, chosen.growth.split(","))} - set(COUNTS):
        parser.error(f"nothing grows in {', '.join(unknown)}")
    return chosen


def settings_of(chosen: argparse.Namespace) -> Settings:
    workloads = tuple(filter(None, chosen.workloads.split(",")))
    pairs, seconds = (3, 0.5) if chosen.quick else (10, 2.0)
    growth = [part.partition("=")[::2] for part in filter(None, chosen.growth.split(","))]
    return Settings(
        chosen.pairs or pairs,
        chosen.seconds or seconds,
        tuple(chosen.profiles),
        workloads,
        large=not chosen.quick,
        growth=tuple((kind, int(count)) for kind, count in growth),
    )


def main() -> int:
    chosen = arguments()
    session = Session(settings_of(chosen), lambda text: print(text, file=sys.stderr, flush=True))
    session.versions["towpath"] = revision()
    path, code = None, 0
    try:
        with signals_raise():
            owner.sweep()
            privilege.enter()
            for suite in chosen.suites or SUITES:
                SUITES[suite](session)
                path = write(chosen, session)  # after each, so that what comes later cannot lose it
    except TowpathError as error:
        print(f"bench: {error}", file=sys.stderr)
        return error.exit_code
    except Ended as ended:
        code = ended.exit_code
        path = write(chosen, session)
    if path is not None:
        print(path.with_suffix(".md").read_text())
        draw(path, chosen)
    return code


def revision() -> str:
    """The commit, marked when the tree has changes; the installed version where there is no git."""
    done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or version()


def write(chosen: argparse.Namespace, session: Session) -> Path:
    """The document and its tables, of all that was measured so far."""
    date = dt.datetime.now(tz=dt.UTC).date().isoformat()
    found = report.document(
        session.matches,
        date=date,
        machine=describe(),
        versions=session.versions,
        settings=asdict(session.settings),
        unavailable=session.unavailable,
        command=f"python -m bench.e2e {shlex.join(sys.argv[1:])}".strip(),
    )
    path = chosen.output / f"{chosen.name or f'{date}-e2e'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    path.with_suffix(".md").write_text(report.markdown(found, PROFILE_TITLES))
    return path


def draw(path: Path, chosen: argparse.Namespace) -> None:
    if not chosen.no_plots:
        from bench import plots

        for picture in plots.draw(path):
            print(f"drawn: {picture}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
