"""The selector grammar: every form, what it matches, and what is no selector."""

from __future__ import annotations

import pytest

from engine.desired.policy.index import LabelIndex, numbers_of
from engine.desired.policy.selector import MAX_DEPTH, MAX_LABEL, SelectorError, equals, every, parse, prefixed

A = {"a": "x"}
AB = {"a": "xyx", "b": ""}
EMPTY: dict[str, str] = {}
LABELLED = [EMPTY, A, AB, {"b": "x"}, {"a": ""}, {"in": "x", "not": "y", "all": "z"}]

# text -> which of LABELLED it matches
FORMS = {
    "": [0, 1, 2, 3, 4, 5],
    " \t": [0, 1, 2, 3, 4, 5],
    "all()": [0, 1, 2, 3, 4, 5],
    "all( )": [0, 1, 2, 3, 4, 5],
    "global()": [0, 1, 2, 3, 4, 5],
    "has(a)": [1, 2, 4],
    "has( a\t)": [1, 2, 4],
    "!has(a)": [0, 3, 5],
    "! has(a)": [0, 3, 5],
    "!!has(a)": [1, 2, 4],
    "!!!has(a)": [0, 3, 5],
    "a == 'x'": [1],
    'a == "x"': [1],
    "a=='x'": [1],
    "a == ''": [4],
    "a != 'x'": [0, 2, 3, 4, 5],
    "!a == 'x'": [0, 2, 3, 4, 5],
    "a in {'x', 'xyx'}": [1, 2],
    "a in {'x',}": [1],
    "a in {}": [],
    "a in {\"x\",'xyx'}": [1, 2],
    "a not in {'x'}": [0, 2, 3, 4, 5],
    "a notin {'x'}": [0, 2, 3, 4, 5],
    "a not  in {'x'}": [0, 2, 3, 4, 5],
    "a not in {}": [0, 1, 2, 3, 4, 5],
    "a contains 'y'": [2],
    "a contains ''": [1, 2, 4],
    "a starts with 'xy'": [2],
    "a starts\twith 'x'": [1, 2],
    "a ends with 'x'": [1, 2],
    "!a ends with 'x'": [0, 3, 4, 5],
    "has(a) && has(b)": [2],
    "has(a) || has(b)": [1, 2, 3, 4],
    "has(b) || has(a) && a == 'x'": [1, 2, 3],
    "(has(b) || has(a)) && a == 'x'": [1],
    "!has(a) && !has(b)": [0, 5],
    "!(has(a) || has(b))": [0, 5],
    "((a == 'x'))": [1],
    "has(a) && !has(a)": [],
    "a == 'x' && a == 'xyx'": [],
    "a == 'x' || !(a == 'x')": [0, 1, 2, 3, 4, 5],
    "in == 'x'": [5],
    "in in {'x'}": [5],
    "not not in {'x'}": [0, 1, 2, 3, 4, 5],
    "all == 'z'": [5],
    "has(all)": [5],
    "a == 'x'&&!has(b)": [1],
    "projectcalico.org/name == 'x'": [],
}


@pytest.mark.parametrize(("text", "expected"), FORMS.items())
def test_form(text, expected):
    selector = parse(text)
    assert [number for number, labels in enumerate(LABELLED) if selector.matches(labels)] == expected
    assert parse(str(selector)) == parse(str(parse(str(selector)))), "printing keeps the meaning"
    again = parse(str(selector))
    assert [number for number, labels in enumerate(LABELLED) if again.matches(labels)] == expected
    assert numbers_of(LabelIndex(LABELLED).select(selector)).tolist() == expected, "the index agrees"


@pytest.mark.parametrize(
    "text",
    [
        "a", "==", "a ==", "a == x", "a = 'x'", "a == 'x", 'a == "x\'', "== 'x'", "'x' == a", "a in", "a in {", "a in {x}",
        "a in {'x' 'y'}", "a in {,}", "a in {'x',,}", "a in 'x'", "has()", "has(a", "has a", "has(a b)", "all(", "all(a)",
        "global(x)", "(", ")", "()", "(a == 'x'", "a == 'x')", "a == 'x' &&", "&& a == 'x'", "a == 'x' & b == 'x'",
        "a == 'x' | b == 'x'", "a == 'x' b == 'x'", "a == 'x' and b == 'x'", "!", "!&&", "a contains", "a starts 'x'",
        "a startswith'x' 'y'", "a like 'x'", "a == 'x\\'y'", "a == 'x';", "a\n== 'x'", "a == 'x'\n", "ä == 'x'", "a$ == 'x'",
        "has(ä)", "a! = 'x'", "a inside {'x'}", "a not {'x'}", f"has({'a' * (MAX_LABEL + 1)})", "(" * 100 + "has(a)" + ")" * 100,
        "x" * 70_000,
    ],
)  # fmt: skip
def test_no_selector(text):
    with pytest.raises(SelectorError):
        parse(text)


def test_depth_and_length_are_bounded_but_generous():
    assert parse("(" * MAX_DEPTH + "has(a)" + ")" * MAX_DEPTH) == parse("has(a)")
    assert parse("!" * 10_001 + "has(a)").matches({})
    assert parse(f"has({'a' * MAX_LABEL})").matches({"a" * MAX_LABEL: ""})
    assert parse(" || ".join(f"a == '{i}'" for i in range(3000))).matches({"a": "2999"})


def test_errors_point_at_the_place():
    with pytest.raises(SelectorError, match="at character 8"):
        parse("has(a) & has(b)")


def test_prefixed_and_every():
    assert str(prefixed(parse("a == 'x' && !has(b)"), "pcns.")) == '(pcns.a == "x" && !has(pcns.b))'
    assert every(parse(""), equals("a", "x")) == equals("a", "x")
    assert every() == parse("all()")
