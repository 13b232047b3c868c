"""The sources as text: what every file says of itself, and what none may contain."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ["engine", "fastpath", "tests", "bench", "examples", "docs", "tools", ".ci"]
BUILT = {".so", ".pyc", ".c"}
SHIM = ROOT / "engine" / "cni" / "shim" / "towpath-cni"  # compiled, without a suffix
PICTURES = {".png", ".svg", ".pcap", ".gz", ".bin"}

# Written in two pieces, so that this file passes its own test.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX)\b")
MACHINE = re.compile(r"(?<![\w.])/(?:wo" r"rk|ro" r"ot|ho" r"me)/[\w.]")
FROM_THE_END = re.compile(r"[\w)\]]\[-\s*\w")  # with wraparound off, the word before the first
SUBJECT = re.compile(r"[a-z][\w./, -]*: [a-z0-9`].*[^.]")


def files() -> list[Path]:
    """Every text file of the project."""
    found = [
        path for path in ROOT.iterdir() if path.is_file() and (path.suffix or path.name in {"Makefile", "LICENSE"})
    ]
    for folder in FOLDERS:
        found += [path for path in (ROOT / folder).rglob("*") if path.is_file()]
    skipped = BUILT | PICTURES
    return sorted(
        p for p in set(found) - {SHIM} if p.suffix not in skipped and "__pycache__" not in p.parts and "corpus" not in p.parts
    )


def lines_with(pattern: re.Pattern[str]) -> Iterator[str]:
    for path in files():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if pattern.search(line):
                yield f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def introduces_itself(path: Path, text: str) -> bool:
    """Whether the file opens with what it is for, in the way of its language."""
    if path.suffix == ".py":
        return ast.get_docstring(ast.parse(text)) is not None
    if path.suffix == ".h":
        return text.startswith("/*")
    return text.startswith(("#", '"""'))


def is_imported(text: str) -> bool:
    """Whether Python code can use something of a .pyx file."""
    return bool(re.search(r"^(?:(?:async )?def|class|cpdef|cdef class|cdef enum class) ?(?!_)\w", text, re.MULTILINE))


def test_the_project_was_found():
    assert {ROOT / "setup.py", ROOT / "fastpath" / "buffer.pxd", Path(__file__)} <= set(files())


def test_nothing_is_left_unfinished():
    assert list(lines_with(UNFINISHED)) == []


def test_no_path_of_a_machine_is_named():
    assert list(lines_with(MACHINE)) == []


def test_nothing_compiled_is_indexed_from_the_end():
    compiled = [line for line in lines_with(FROM_THE_END) if re.match(r"[^:]+\.(pyx|pxd|pxi):", line)]
    assert compiled == []


def test_every_module_introduces_itself():
    modules = [p for p in files() if p.suffix in {".py", ".pyx", ".pxd", ".h"}]
    silent = [p for p in modules if (text := p.read_text()).strip() and not introduces_itself(p, text)]
    assert [str(path.relative_to(ROOT)) for path in silent] == []


def test_every_compiled_module_has_its_types():
    sources = [p for p in (ROOT / "fastpath").rglob("*.pyx") if is_imported(p.read_text())]
    assert [str(p.relative_to(ROOT)) for p in sources if not p.with_suffix(".pyi").exists()] == []


def test_every_package_is_marked_as_typed():
    assert (ROOT / "engine" / "py.typed").exists()
    assert (ROOT / "fastpath" / "py.typed").exists()


def test_every_suppressed_race_names_a_function_that_is_there():
    named = re.findall(r"^race\w*:\w*?fastpath_(\S+)$", (ROOT / "tests" / "tsan.supp").read_text(), re.MULTILINE)
    assert named
    for mangled in named:  # 5tally_5Tally_total, 5table_4flow_flow_guess
        parts = re.findall(r"(?:^|_)\d+([A-Za-z]\w*?)(?=_|$)", mangled)
        function = re.sub(r"^(?:_?\d+[A-Za-z]+)+_", "", mangled)
        modules = [part for part in parts if part.islower()]
        sources = [(ROOT / "fastpath").joinpath(*modules).with_suffix(suffix) for suffix in (".pyx", ".pxd")]
        text = "".join(source.read_text() for source in sources if source.exists())
        assert re.search(rf"\b{function}\(", text), mangled


def test_the_latest_subject_names_its_package_and_a_verb():
    command = ["git", "-C", str(ROOT), "log", "-1", "--no-merges", "--format=%s"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    subjects = done.stdout.splitlines()
    assert [s for s in subjects if len(s) > 72 or not SUBJECT.fullmatch(s)] == []


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (UNFINISHED, "# FIX" + "ME: later"),
        (UNFINISHED, "X" + "XX"),
        (FROM_THE_END, "last = names()[-1]"),
        (FROM_THE_END, "last = names[-n]"),
        (MACHINE, "see /ho" + "me/me/notes"),
        (MACHINE, 'open("/ro' + 'ot/.config")'),
    ],
)
def test_what_is_forbidden_would_be_found(pattern, text):
    assert pattern.search(text)


def test_ordinary_text_is_not_forbidden():
    assert not MACHINE.search("https://example.org/home/x and tests/home/x")
    assert not UNFINISHED.search("mktemp -d XXXXXX")
    assert not SUBJECT.fullmatch("Fix the thing.")
    assert SUBJECT.fullmatch("fib: grow by doubling")


def test_a_file_without_a_header_would_be_found():
    assert not introduces_itself(Path("a.py"), "x = 1\n")
    assert not introduces_itself(Path("a.pxd"), "cdef int x\n")
    assert introduces_itself(Path("a.pyx"), "# What it owns.\n")
