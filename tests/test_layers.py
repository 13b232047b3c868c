"""The arrows of the design: who may import whom, read from the sources.

Owns: the table of layers. An import or cimport points down the table, or it
is a violation; so is one between two parts of the same layer, and a circle.
Never: imports what it checks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A part is the second word of a module's name; "" is the package's own face.
LAYERS: dict[str, list[set[str]]] = {
    "fastpath": [
        {"reason", "atomic", "values", "build"},
        {"buffer", "counters", "reasons", "events"},
        {"wire", "simd", "system", "patience"},
        {"table", "encap", "offload"},
        {"stage", "port"},
        {"records", "transmit"},
        {"worker", "lpm_key", "lpm_values", "lpm_text", "lpm_mrt"},
        {"lpm_arrays"},
        {"lpm_snapshot", "crew"},
        {"tally"},
        {"plane", "lpm", "reference"},
        {""},
    ],
    "engine": [
        {"model", "errors", "views", "loop", "notify", "logs", "version", "words"},
        {"config", "netns", "lockfile", "recordfile"},
        {"desired"},
        {"source", "apply"},
        {"pod", "control", "observe", "policy"},
        {"handover"},
        {"datapath", "enforcement"},
        {"inquiry"},
        {"policing", "vigil", "complaints"},
        {"keeper"},
        {"node"},
        {"cni"},
        {"daemon", "policy"},
        {"lab", ""},
        {"cli"},
    ],
}

# Within a package of fastpath, files do not see each other, but for these: what
# its siblings share, lowest first. A listed file may use those before it.
SHARED: dict[str, list[str]] = {
    "fastpath.wire": ["octets", "checksum", "fragment", "transport", "ipv4", "ipv6"],
    "fastpath.simd": ["dispatch"],
    "fastpath.table": ["qsbr", "rib", "fib_pool", "fib_rows", "fib_paint", "fib_change", "fib_elements", "fib_bucket", "fib_node", "fib_array", "fib_build", "flow"],
    "fastpath.encap": ["tunnel"],
    "fastpath.offload": ["sums", "complete", "merge"],
    "fastpath.port": ["pace", "port", "socket", "sockets", "tuntap"],
    "fastpath.reference": ["packet", "sums", "header", "lookup", "parsing"],
    "fastpath.stage": ["lookup", "parse", "police", "states"],
}

# Files that bring their siblings together, and that no sibling may use.
GATHERING = {"fastpath.encap.registry"}

# The one noun that a neighbour in the same layer reads: what a stage needs to know of a port.
READ_SIDEWAYS = {("stage", "fastpath.port.port")}

# Where the control plane may touch the data plane.
BRIDGES = ("engine.apply.plane", "engine.apply.policy", "engine.observe", "engine.lab")

CIMPORT = re.compile(
    r"^[ \t]*from[ \t]+([\w.]+)[ \t]+c?import[ \t]+(\([^)]*\)|[^\n#]*)|^[ \t]*c?import[ \t]+([^\n#(]*)", re.MULTILINE
)
STRINGS_AND_COMMENTS = re.compile(r'"""(?:.|\n)*?"""|\'\'\'(?:.|\n)*?\'\'\'|#[^\n]*')


@dataclass(frozen=True, order=True)
class Arrow:
    """Module `source` imports module `target`."""

    source: str
    target: str

    def __str__(self) -> str:
        return f"{self.source} -> {self.target}"


# -- reading -----------------------------------------------------------------
def named_imports(text: str, *, python: bool) -> Iterator[str]:
    """Every dotted name that could be a module: X for `import X`; X and X.a for `from X import a`."""
    if python:
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = "." * node.level + (node.module or "")
                yield from (f"{base}:{alias.name}" for alias in node.names)
        return
    for base, names, plain in CIMPORT.findall(STRINGS_AND_COMMENTS.sub("", text)):
        if base:
            yield from (f"{base}:{name.split()[0]}" for name in names.strip("()\n ").split(",") if name.strip())
        else:
            yield from (name.split()[0] for name in plain.split(",") if name.strip())


def arrows(files: dict[str, str]) -> set[Arrow]:
    """The arrows between the modules of `files` (path below the root -> text)."""
    modules = {module_of(path) for path in files}
    found = set()
    for path, text in files.items():
        source = module_of(path)
        for name in named_imports(text, python=path.endswith((".py", ".pyi"))):
            base, _, member = name.partition(":")
            if base.startswith("."):
                found.add(Arrow(source, base))
                continue
            target = f"{base}.{member}" if f"{base}.{member}" in modules else base
            if target.split(".")[0] in LAYERS and target != source:
                found.add(Arrow(source, target))
    return found


def module_of(path: str) -> str:
    parts = Path(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> dict[str, str]:
    paths = [
        p for package in LAYERS for p in (ROOT / package).rglob("*") if p.suffix in {".py", ".pyi", ".pyx", ".pxd"}
    ]
    return {str(path.relative_to(ROOT)): path.read_text() for path in sorted(paths)}


# -- judging -----------------------------------------------------------------
def place(module: str) -> tuple[str, str, int | None]:
    """(package, part, layer) of a module; the layer is None for a part the table does not know."""
    package, _, rest = module.partition(".")
    part = rest.split(".")[0]
    layer = next((i for i, parts in enumerate(LAYERS[package]) if part in parts), None)
    return package, part, layer


def objection(arrow: Arrow) -> str | None:
    """What is wrong with one arrow, or None."""
    if arrow.target.startswith("."):
        return f"{arrow}: relative; write the whole name"
    package, part, layer = place(arrow.source)
    target_package, target_part, target_layer = place(arrow.target)
    if layer is None or target_layer is None:
        return f"{arrow}: a part which the table of layers does not know"
    if package != target_package:
        return objection_across(arrow, package)
    if part == target_part:
        return objection_within(arrow)
    if target_layer == layer and (part, arrow.target) not in READ_SIDEWAYS:
        return f"{arrow}: sideways within a layer"
    if target_layer > layer:
        return f"{arrow}: up"
    return None


def objection_across(arrow: Arrow, package: str) -> str | None:
    if package == "fastpath":
        return f"{arrow}: the data plane knows nothing of the control plane"
    if arrow.source == "engine" or any(arrow.source == b or arrow.source.startswith(b + ".") for b in BRIDGES):
        return None
    return f"{arrow}: only {', '.join(BRIDGES)} and engine itself touch the data plane"


def objection_within(arrow: Arrow) -> str | None:
    """Siblings of one package of fastpath meet in its shared files only; in engine, a circle is all that is wrong."""
    package, _, target = arrow.target.rpartition(".")
    if arrow.source in {package, *GATHERING} or not package.startswith("fastpath."):
        return None
    shared = SHARED.get(package, [])
    source = arrow.source.rpartition(".")[2]
    rank = shared.index(source) if source in shared else len(shared)
    if target in shared[:rank]:
        return None
    return f"{arrow}: sideways within {package}, and {target} is not what its files share"


def circle(graph: Iterable[Arrow]) -> list[str] | None:
    """The modules of one circle, or None. A package's face may name its own files, and they it by path."""
    targets: dict[str, list[str]] = {}
    for arrow in sorted(graph):
        targets.setdefault(arrow.source, []).append(arrow.target)
    finished: set[str] = set()

    def visit(module: str, trail: list[str]) -> list[str] | None:
        if module in trail:
            return [*trail[trail.index(module) :], module]
        if module in finished:
            return None
        for target in targets.get(module, []):
            if found := visit(target, [*trail, module]):
                return found
        finished.add(module)
        return None

    return next((found for module in list(targets) if (found := visit(module, []))), None)


def objections(files: dict[str, str]) -> list[str]:
    graph = arrows(files)
    found = sorted(filter(None, map(objection, graph)))
    if ring := circle(graph):
        found.append(f"circle: {' -> '.join(ring)}")
    return found


# -- the tests ---------------------------------------------------------------
def test_every_arrow_points_down():
    files = sources()
    assert len(arrows(files)) > 5, "the sources were not found"
    assert objections(files) == []


def test_every_part_of_the_tree_has_a_layer():
    unknown = [module_of(path) for path in sources() if place(module_of(path))[2] is None]
    assert unknown == []


PLANTED = {
    "up": ({"fastpath/wire/ipv4.pxd": "from fastpath.table.fib cimport fib4_find", "fastpath/table/fib.pxd": ""}, "up"),
    "up, in a function": ({"engine/desired/rib.py": "def f():\n    from engine.apply import delta"}, "up"),
    "sideways": ({"fastpath/encap/vxlan.pxd": "from fastpath.table cimport peer"}, "sideways within a layer"),
    "sideways, over several lines": (
        {"fastpath/stage/route.pxd": "from fastpath.port.udp cimport (\n    a,  # one\n    b,\n)"},
        "sideways within a layer",
    ),
    "between two leaves": (
        {"fastpath/encap/vxlan.pxd": "cimport fastpath.encap.udp", "fastpath/encap/udp.pxd": ""},
        "is not what its files share",
    ),
    "to the file which gathers": (
        {
            "fastpath/encap/vxlan.pxd": "from fastpath.encap.registry cimport encap_put",
            "fastpath/encap/registry.pxd": "",
        },
        "is not what its files share",
    ),
    "from a port to a stage": (
        {"fastpath/port/port.pxd": "from fastpath.stage.route cimport route"},
        "sideways within a layer",
    ),
    "against the order of shared files": (
        {"fastpath/wire/octets.pxd": "from fastpath.wire cimport checksum", "fastpath/wire/checksum.pxd": ""},
        "is not what its files share",
    ),
    "data plane to control plane": ({"fastpath/plane.pyx": "import engine.model"}, "knows nothing"),
    "control plane to data plane": ({"engine/daemon.py": "from fastpath import Plane"}, "touch the data plane"),
    "relative": ({"engine/config.py": "from .errors import ConfigError"}, "relative"),
    "unknown part": ({"engine/config.py": "import engine.utilities"}, "does not know"),
    "circle": (
        {"engine/lab/a.py": "import engine.lab.b", "engine/lab/b.py": "if x:\n    from engine.lab import a"},
        "circle: engine.lab.a -> engine.lab.b -> engine.lab.a",
    ),
}


@pytest.mark.parametrize("case", PLANTED)
def test_a_planted_violation_is_found(case):
    files, expected = PLANTED[case]
    assert any(expected in text for text in objections(files)), objections(files)


def test_what_is_allowed_is_not_objected_to():
    assert (
        objections(
            {
                "fastpath/encap/tunnel.pxd": "from fastpath.buffer cimport packet",
                "fastpath/encap/registry.pxd": "from fastpath.encap.vxlan cimport vxlan_put",
                "fastpath/stage/guard.pxd": "from fastpath.port.port cimport port",
                "fastpath/encap/vxlan.pxd": "# from fastpath.worker\nfrom fastpath.encap.tunnel cimport tunnel, x as y",
                "fastpath/buffer.pxd": '"""import fastpath.worker"""\nfrom libc.stdint cimport uint8_t',
                "engine/apply/plane.py": "from fastpath import Plane\nfrom engine.apply import delta",
                "engine/apply/delta.py": "from engine.model import Desired",
                "engine/apply/__init__.py": "from engine.apply.plane import Plane",
            }
        )
        == []
    )
