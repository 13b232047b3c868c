"""No Python inside the packet loop: a gate over the C that Cython wrote.

A `nogil` function can still take the GIL behind its author's back: to look
for an exception, to report one, to count a reference. Each of these is one
identifier in the generated C, so the C is read: every function the packet
loop can reach, and every `nogil` function of fastpath (whatever is called
through a pointer is among those), must name nothing of Python.

Never: compiles anything. The C is the one the build at hand was made from.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastpath
from fastpath.build import compiled_modules

ROOT = Path(__file__).parent.parent
GENERATED = ROOT / "build" / "release" / "c"

# The packet loop: module -> the function which is one turn of it.
LOOP = {"fastpath.worker": "worker_turn"}

# Modules whose functions are a few instructions each and must vanish into their callers.
INLINED = ("fastpath.wire.octets",)

PYTHON = re.compile(r"\b(?:_?Py[A-Z_]\w*|__Pyx_\w+)\b")
HARMLESS = {
    "Py_ssize_t",  # a type
    "__Pyx_UNREACHABLE",  # a hint to the compiler
}

DEFINITION = re.compile(
    r"^(?:static|[A-Za-z_])[^;{}()#=]*?\b(\w+)\([^;{}]*?\)\s*\{\n(.*?)^\}", re.MULTILINE | re.DOTALL
)
COMMENTS_AND_STRINGS = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', re.DOTALL)
PREPROCESSOR = re.compile(r"^[ \t]*#(?:[^\n\\]|\\\n|\\.)*", re.MULTILINE)


# -- reading C ---------------------------------------------------------------
def functions(text: str) -> dict[str, str]:
    """Name -> body of each function defined in a C file."""
    return dict(DEFINITION.findall(PREPROCESSOR.sub("", COMMENTS_AND_STRINGS.sub("", text))))


def mangled(module: str, name: str) -> str:
    """The name Cython gives the C function `name` of `module`."""
    return "__pyx_f_" + "_".join(f"{len(part)}{part}" for part in module.split(".")) + "_" + name


def reachable(roots: set[str], bodies: dict[str, str]) -> dict[str, str]:
    """Each function called or mentioned from `roots` on, with the one that led to it; Python's own are not entered."""
    came_from = dict.fromkeys(sorted(roots), "")
    waiting = list(came_from)
    while waiting:
        caller = waiting.pop()
        for word in set(re.findall(r"\b\w+\b", bodies[caller])):
            if word in bodies and word not in came_from and not PYTHON.fullmatch(word):
                came_from[word] = caller
                waiting.append(word)
    return came_from


def offences(roots: set[str], bodies: dict[str, str]) -> list[str]:
    """What of Python the functions reachable from `roots` name, one sentence a function."""
    found = []
    for name, caller in reachable(roots, bodies).items():
        if words := sorted(set(PYTHON.findall(bodies[name])) - HARMLESS):
            found.append(f"{name}{f' (from {caller})' if caller else ''} uses {', '.join(words)}")
    return found


# -- reading Cython ----------------------------------------------------------
def statements(text: str) -> list[tuple[int, str]]:
    """(indentation, text) of each logical line, without comments and docstrings."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", text)
    text = re.sub(r"#[^\n]*", "", text)
    while (joined := re.sub(r"\(([^()\n]*)\n\s*", r"(\1 ", text)) != text:
        text = joined
    return [(len(line) - len(line.lstrip()), line.strip()) for line in text.splitlines() if line.strip()]


def declarations(text: str) -> list[str]:
    """The declarations which say `nogil`, those of foreign C apart."""
    found, extern = [], None
    for indent, line in statements(text):
        if extern is not None and indent <= extern:
            extern = None
        if line.startswith("cdef extern"):
            extern = indent
        elif extern is None and re.search(r"\bnogil\b", line) and not re.match(r"with\b|@", line):
            found.append(line)
    return found


def nogil_functions(text: str) -> set[str]:
    """Names of the functions (not the pointers) declared `nogil`."""
    names = (re.match(r"c(?:p)?def\b[^(]*?(\w+)\s*\(", d) for d in declarations(text) if "(*" not in d.split(")")[0])
    return {match[1] for match in names if match}


# -- what is at hand ---------------------------------------------------------
def cython_sources() -> list[Path]:
    return sorted(p for p in (ROOT / "fastpath").rglob("*") if p.suffix in {".pyx", ".pxd"})


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.fixture(scope="module")
def bodies() -> dict[str, str]:
    """Every function of the C generated for fastpath. Statics of two files that share a name share their fate."""
    if fastpath.BUILD != "release":
        pytest.fail(f"fastpath is {fastpath.BUILD}; run `make build`")
    found: dict[str, str] = {}
    for source in (ROOT / "fastpath").rglob("*.pyx"):
        generated = GENERATED / source.relative_to(ROOT).with_suffix(".c")
        if not generated.exists() or generated.stat().st_mtime < source.stat().st_mtime:
            pytest.fail(f"{generated} is missing or older than {source.name}; run `make build`")
        for name, body in functions(generated.read_text()).items():
            if body not in found.get(name, ""):
                found[name] = found.get(name, "") + body
    return found


def roots_in(bodies: dict[str, str]) -> set[str]:
    """The C functions of everything declared `nogil` in fastpath, methods included."""
    found = set()
    for path in cython_sources():
        prefix = mangled(module_of(path), "")
        for name in nogil_functions(path.read_text()):
            method = re.compile(re.escape(prefix) + r"(?:\d+\w+_)?" + re.escape(name))
            found |= {function for function in bodies if method.fullmatch(function)}
    return found


# -- the gate ----------------------------------------------------------------
@pytest.mark.parametrize("module", LOOP)
def test_the_packet_loop_names_nothing_of_python(module, bodies):
    root = mangled(module, LOOP[module])
    assert root in bodies, f"{module}.{LOOP[module]} is not in the generated C"
    assert len(reachable({root}, bodies)) > 10, "the loop calls next to nothing: was it read right?"
    assert offences({root}, bodies) == []


def test_no_nogil_function_names_anything_of_python(bodies):
    roots = roots_in(bodies)
    assert roots, "no nogil function was found in the generated C"
    assert offences(roots, bodies) == []


def test_everything_nogil_says_noexcept():
    silent = [
        f"{path.relative_to(ROOT)}: {declaration}"
        for path in cython_sources()
        for declaration in declarations(path.read_text())
        if not re.search(r"\bnoexcept\b", declaration)
    ]
    assert silent == []


@pytest.mark.needs("nm")
def test_small_readers_are_inlined_everywhere():
    modules = compiled_modules(str(ROOT / "fastpath"))
    assert modules, "nothing is built"
    standing = []
    for module in modules:
        listing = subprocess.run(["nm", module], check=True, capture_output=True, text=True).stdout
        assert "__pyx_" in listing, f"{module} has no symbols to look at"
        prefixes = tuple(mangled(name, "") for name in INLINED)
        standing += [f"{Path(module).name}: {word}" for word in listing.split() if word.startswith(prefixes)]
    assert standing == []


# -- the gate is tried on planted offences -----------------------------------
PLANTED = """
cdef int sometimes_fails(int n) nogil:
    return n - 1

cdef int clean(int n) noexcept nogil:
    return n * 2

cdef int takes_the_gil(int n) noexcept nogil:
    with gil:
        print(n)
    return n

cdef int calls_one_that_may_fail(int n) noexcept nogil:
    return clean(n) + sometimes_fails(n)

cdef int goes_through_two(int n) noexcept nogil:
    return calls_one_that_may_fail(n)

def use(int n):
    return goes_through_two(n) + takes_the_gil(n)
"""


@pytest.fixture(scope="module")
def planted(tmp_path_factory) -> dict[str, str]:
    """The C functions of the planted module, generated by the Cython of the build."""
    folder = tmp_path_factory.mktemp("planted")
    (folder / "planted.pyx").write_text(PLANTED)
    command = [sys.executable, "-m", "cython", "-3", "-X", "cdivision=True", "planted.pyx"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return functions((folder / "planted.c").read_text())


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("takes_the_gil", "PyGILState"),
        ("calls_one_that_may_fail", "ErrOccurredWithGIL"),
        ("goes_through_two", "calls_one_that_may_fail"),
    ],
)
def test_a_planted_offence_is_found(planted, name, named):
    assert named in " ".join(offences({mangled("planted", name)}, planted))


def test_a_clean_function_passes(planted):
    assert offences({mangled("planted", "clean")}, planted) == []


def test_a_missing_noexcept_is_found():
    said = declarations(
        "ctypedef int (*send)(int *port,\n    int n) nogil\n"
        "cdef extern from 'x.h' nogil:\n    int foreign(int n)\n"
        "cdef struct operations:\n    int (*receive)(int n) noexcept nogil\n"
        "cdef int f(int n) nogil:  # noexcept\n    with nogil:\n        pass\n"
    )
    assert [line for line in said if "noexcept" not in line] == [
        "ctypedef int (*send)(int *port, int n) nogil",
        "cdef int f(int n) nogil:",
    ]
    assert nogil_functions(PLANTED) >= {"clean", "sometimes_fails", "takes_the_gil"}
