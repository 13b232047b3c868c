"""What fuzzing starts from, and what it has found, goes through every parser again.

A broken promise aborts, so each input runs in a process that may die without
the suite; under AddressSanitizer (`make asan`) reads too far are found here too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.inputs import seeds

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
REPLAY = """
import sys
from tests.cy import probe_fuzz
from tests.fuzz.inputs import seeds
inputs = dict(seeds()[sys.argv[1]])
for path in sys.argv[2:]:
    inputs[path] = open(path, "rb").read()
for name, data in inputs.items():
    print(name, flush=True)
    for end in range(len(data) + 1):
        probe_fuzz.run(sys.argv[1], data[:end])
print(len(inputs), "inputs")
"""


@pytest.mark.parametrize("target", list(seeds()))
def test_replay(target: str) -> None:
    found = sorted((HERE / "regress").glob(f"{target}-*"))
    command = [sys.executable, "-c", REPLAY, target, *map(str, found)]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-200:]}{done.stderr}"
    assert done.stdout.endswith(f"{len(seeds()[target]) + len(found)} inputs\n")


def test_names_of_findings_tell_the_target() -> None:
    for path in (HERE / "regress").glob("[!.]*"):
        assert any(path.name.startswith(f"{target}-") for target in seeds()), path
