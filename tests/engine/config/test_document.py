"""The scanner finds the line of every key that tomllib finds, however the text is written."""

import random
import tomllib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.config.document import read

TEXT = '''\ufeff# a comment with [brackets] and = signs
top = 1
"quoted key" = 2   # another
'literal.key' = 3
"with \\"escape\\"" = 4
a.b.c = 5

[table]   # comment
list = [ # comment ]
  "one", 'two',   # "three"
  [ 1, 2 ],

  { x = 1, y.z = [ 2,
    3 ] },
]
text = """
multi "line" ]
[not.a.table]
\\""" still"""
literal = \'\'\'
x = [
\'\'\'
[[items]]
name = "a"
[items.sub]
deep = 1
[[items.more]]
n = 1
[[items.more]]
n = 2
[[items]]
name = "b"
empty = []
nothing = {}
date = 1979-05-27T07:32:00Z
[items.sub.deeper]
n = -1e3
'''

LINES = {
    ("top",): 2,
    ("quoted key",): 3,
    ("literal.key",): 4,
    ('with "escape"',): 5,
    ("a", "b", "c"): 6,
    ("a",): 6,
    ("table",): 8,
    ("table", "list"): 9,
    ("table", "list", 0): 10,
    ("table", "list", 1): 10,
    ("table", "list", 2, 1): 11,
    ("table", "list", 3): 13,
    ("table", "list", 3, "y", "z"): 13,
    ("table", "list", 3, "y", "z", 1): 14,
    ("table", "text"): 16,
    ("table", "literal"): 20,
    ("items",): 23,
    ("items", 0): 23,
    ("items", 0, "sub", "deep"): 26,
    ("items", 0, "more", 1): 29,
    ("items", 0, "more", 1, "n"): 30,
    ("items", 1): 31,
    ("items", 1, "date"): 35,
    ("items", 1, "sub", "deeper"): 36,
    ("items", 1, "sub", "deeper", "n"): 37,
}


@pytest.mark.parametrize(("path", "line"), LINES.items(), ids=str)
@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_line(path, line, ends):
    text = TEXT.replace("\n", ends)
    document = read(text, "t.toml")
    assert document.line(path) == line


def test_unknown_path_falls_back():
    document = read(TEXT, "t.toml")
    assert document.line(("items", 1, "sub", "deeper", "n", "x", 3)) == 37
    assert document.line(("nowhere",)) == 0
    assert document.line(()) == 0


def paths_of(tree, path=()):
    if path:
        yield path
    children = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in children:
        yield from paths_of(value, (*path, key))


def test_every_path_of_the_tree_has_a_line():
    document = read(TEXT, "t.toml")
    assert {path for path in paths_of(document.tree) if path not in document.lines} == set()


keys = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True), st.text(st.characters(codec="utf-8"), max_size=6)
)
scalars = st.one_of(st.integers(-999, 999), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=12))
trees = st.dictionaries(
    keys,
    st.recursive(
        scalars, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3))
    ),
    max_size=5,
)
BLANKS = ["", " ", "  # ]}=,\"'\n", "\n\n", "\t"]


def quoted(text):
    return (
        '"'
        + "".join(
            f"\\U{ord(sign):08X}" if sign in '"\\' or ord(sign) < 32 or ord(sign) == 127 else sign for sign in text
        )
        + '"'
    )


def written(value, chance):
    """The value as TOML, with blanks and comments wherever they are allowed."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        inside = ",".join(
            f"{chance.choice(BLANKS)}{written(element, chance)}{chance.choice(BLANKS)}" for element in value
        )
        return f"[{inside}{chance.choice(BLANKS)}]"
    return "{" + ", ".join(f"{quoted(key)} = {written(element, chance)}" for key, element in value.items()) + "}"


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(trees, st.integers(0, 99))
def test_any_text_is_scanned_to_its_end(tree, seed):
    chance = random.Random(seed)
    text = "".join(f"{quoted(key)} = {written(value, chance)}\n" for key, value in tree.items())
    document = read(text, "t.toml")
    assert document.tree == tomllib.loads(text)
    assert set(document.lines) == set(paths_of(tree))
    for path, line in document.lines.items():
        if isinstance(path[-1], str):
            assert quoted(path[-1]) in text.split("\n")[line - 1]
