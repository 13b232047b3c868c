"""Reading hostile text: bounded work, and errors that name the place."""

from __future__ import annotations

import pytest

from engine.desired.policy.document import LIMITS, Limits, PolicyError, parse

BOMB = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n"


def documents(text, file="f.yaml", limits=LIMITS):
    return [value for _, value in parse(text, file, limits)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (BOMB, "an alias"),
        ("<<: {a: b}\n", ""),
        ("a: 1\na: 2\n", "stands twice"),
        ("1: a\n", "is no string"),
        ("? [a]\n: b\n", "is no string"),
        ("? {a: b}\n: c\n", "is no string"),
        ("[" * 70 + "]" * 70, "levels of nesting"),
        ("{a: " * 70 + "}" * 70, "levels of nesting"),
        ("a: [", "not YAML"),
        ("a: b: c", "not YAML"),
        ("\t- a", "not YAML"),
        (b"a: \xff", "not "),
        ("a: \x07", "not YAML"),
    ],
)
def test_refused(text, what):
    if not what:
        assert documents(text) == [{"<<": {"a": "b"}}], "a merge key is a plain key"
        return
    with pytest.raises(PolicyError, match=what) as caught:
        documents(text)
    assert caught.value.origin.file == "f.yaml"
    assert str(caught.value).startswith("f.yaml#")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('{"a": 1, "a": 2}', "stands twice"),
        ("[" * 5000 + "]" * 5000, "nesting"),
        ("[" * 70 + "]" * 70, "nesting"),
        ("{", "not JSON"),
        (b"\xff\xfe", "not "),
    ],
)
def test_refused_json(text, what):
    with pytest.raises(PolicyError, match=what):
        documents(text, "f.json")


def test_limits():
    with pytest.raises(PolicyError, match="bytes"):
        documents("a: b", limits=Limits(size=3))
    with pytest.raises(PolicyError, match="more than 10 values"):
        documents("[" + "x, " * 20 + "]", limits=Limits(values=10))


def test_scalars_are_those_of_json():
    text = "[1, -1, 1.5, 1e3, true, False, null, ~, '1', yes, on, 0x10, 017, 1_000, 2024-01-01, 12:30:45, .inf, !!str 1, '']"
    assert documents(text) == [
        [1, -1, 1.5, 1000.0, True, False, None, None, "1", "yes", "on", "0x10", "017", "1_000", "2024-01-01", "12:30:45", ".inf", "1", ""]
    ]  # fmt: skip


def test_tags_construct_nothing():
    assert documents("!!python/object/apply:os.system ['true']") == [["true"]]


def test_documents_are_counted():
    assert [origin.document for origin, _ in parse("a: b\n---\n---\nc: d\n", "f.yaml")] == [1, 2, 3]
