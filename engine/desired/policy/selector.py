"""Label selectors: one small tree for both languages, and the parser of Calico's.

Owns: the tree, what it matches, and the grammar of the textual form.
Never: knows endpoints, namespaces or policies; it sees a mapping of labels.
Invariant: every tree is finite and shallow (`MAX_DEPTH`), so that evaluating
one from a hostile document ends soon and cannot exhaust the stack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

Labels = Mapping[str, str]

MAX_LENGTH: Final = 65_536  # characters of one textual selector
MAX_DEPTH: Final = 64  # nested parentheses and negations
MAX_LABEL: Final = 512

_IDENTIFIER: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-")


class SelectorError(ValueError):
    """The text is no selector; `position` is where that became certain."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(f"{what} at character {position + 1}")
        self.what = what
        self.position = position


# -- the tree ----------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class All:
    """Everything; also what `global()` says outside a namespace selector."""

    def matches(self, labels: Labels) -> bool:
        return True

    def __str__(self) -> str:
        return "all()"


@dataclass(frozen=True, slots=True)
class Global:
    """`global()`: only a namespace selector gives it a meaning of its own."""

    def matches(self, labels: Labels) -> bool:
        return True

    def __str__(self) -> str:
        return "global()"


@dataclass(frozen=True, slots=True)
class Has:
    label: str

    def matches(self, labels: Labels) -> bool:
        return self.label in labels

    def __str__(self) -> str:
        return f"has({self.label})"


@dataclass(frozen=True, slots=True)
class In:
    """`==` is the set of one; the empty set matches nothing."""

    label: str
    values: frozenset[str]

    def matches(self, labels: Labels) -> bool:
        return self.label in labels and labels[self.label] in self.values

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.label} == {_quote(*self.values)}"
        return f"{self.label} in {{{', '.join(map(_quote, sorted(self.values)))}}}"


@dataclass(frozen=True, slots=True)
class Text:
    """A comparison with part of the value: contains, starts with, ends with."""

    label: str
    operator: str
    value: str

    def matches(self, labels: Labels) -> bool:
        return self.label in labels and _TEXT[self.operator](labels[self.label], self.value)

    def __str__(self) -> str:
        return f"{self.label} {self.operator} {_quote(self.value)}"


@dataclass(frozen=True, slots=True)
class Not:
    """Also the form of `!=` and `not in`, which match where the label is absent."""

    inner: Selector

    def matches(self, labels: Labels) -> bool:
        return not self.inner.matches(labels)

    def __str__(self) -> str:
        if isinstance(self.inner, In):
            text = str(self.inner)
            return (
                text.replace(" == ", " != ", 1) if len(self.inner.values) == 1 else text.replace(" in ", " not in ", 1)
            )
        return f"!{self.inner}"


@dataclass(frozen=True, slots=True)
class And:
    parts: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        return all(part.matches(labels) for part in self.parts)

    def __str__(self) -> str:
        return f"({' && '.join(map(str, self.parts))})"


@dataclass(frozen=True, slots=True)
class Or:
    parts: tuple[Selector, ...]

    def matches(self, labels: Labels) -> bool:
        return any(part.matches(labels) for part in self.parts)

    def __str__(self) -> str:
        return f"({' || '.join(map(str, self.parts))})"


Selector = All | Global | Has | In | Text | Not | And | Or
EVERYTHING: Final[Selector] = All()

_TEXT: Final[dict[str, Callable[[str, str], bool]]] = {
    "contains": lambda value, part: part in value,
    "starts with": str.startswith,
    "ends with": str.endswith,
}


def _quote(value: str) -> str:
    return f"'{value}'" if '"' in value else f'"{value}"'


def equals(label: str, value: str) -> In:
    return In(label, frozenset((value,)))


def every(*parts: Selector) -> Selector:
    """The conjunction, as small as it can be written."""
    kept: list[Selector] = []
    for part in parts:
        if isinstance(part, And):
            kept.extend(part.parts)
        elif not isinstance(part, All):
            kept.append(part)
    if not kept:
        return All()
    return kept[0] if len(kept) == 1 else And(tuple(kept))


def labels_of(selector: Selector) -> Iterator[str]:
    """The labels whose change can change the answer (with repetitions)."""
    match selector:
        case Has(label) | In(label) | Text(label):
            yield label
        case Not(inner):
            yield from labels_of(inner)
        case And(parts) | Or(parts):
            for part in parts:
                yield from labels_of(part)


Leaf = tuple[str, str | None]  # a label and the value that counts, or any


def leaves(selector: Selector) -> Iterator[Leaf]:
    """What a change has to touch to change the answer."""
    match selector:
        case In(label, values):
            for value in values:
                yield label, value
        case Has(label) | Text(label):
            yield label, None
        case Not(inner):
            yield from leaves(inner)
        case And(parts) | Or(parts):
            for part in parts:
                yield from leaves(part)


def rewrite(selector: Selector, leaf: Callable[[Selector], Selector]) -> Selector:
    """The same tree with every leaf replaced."""
    match selector:
        case Not(inner):
            return Not(rewrite(inner, leaf))
        case And(parts):
            return And(tuple(rewrite(part, leaf) for part in parts))
        case Or(parts):
            return Or(tuple(rewrite(part, leaf) for part in parts))
    return leaf(selector)


def prefixed(selector: Selector, prefix: str) -> Selector:
    """The selector over labels that were stored under `prefix`."""

    def leaf(part: Selector) -> Selector:
        match part:
            case Has(label):
                return Has(prefix + label)
            case In(label, values):
                return In(prefix + label, values)
            case Text(label, operator, value):
                return Text(prefix + label, operator, value)
        return part

    return rewrite(selector, leaf)


# -- the textual form --------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # label, string, end, or the symbol itself
    text: str
    position: int


_SYMBOLS: Final = ("==", "!=", "&&", "||", "(", ")", "{", "}", ",", "!")
_OPERATORS: Final = (("contains",), ("starts", "with"), ("ends", "with"), ("not", "in"), ("in",))
_CALLS: Final = ("has", "all", "global")


class _Scanner:
    """Cuts the text into tokens; what a word means depends on the word before it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def tokens(self) -> list[_Token]:
        found: list[_Token] = []
        while True:
            token = self._next(after_label=bool(found) and found[-1].kind == "label")
            found.append(token)
            if token.kind == "end":
                return found

    def _next(self, *, after_label: bool) -> _Token:
        self._skip_blanks()
        start = self.at
        if start == len(self.text):
            return _Token("end", "", start)
        for symbol in _SYMBOLS:
            if self.text.startswith(symbol, start):
                self.at += len(symbol)
                return _Token(symbol, symbol, start)
        if self.text[start] in "'\"":
            return self._string(start)
        if after_label:
            return self._operator(start)
        return self._call(start) or _Token("label", self._identifier(), start)

    def _skip_blanks(self) -> None:
        while self.at < len(self.text) and self.text[self.at] in " \t":
            self.at += 1

    def _string(self, start: int) -> _Token:
        end = self.text.find(self.text[start], start + 1)
        if end < 0:
            raise SelectorError("unterminated string", start)
        self.at = end + 1
        return _Token("string", self.text[start + 1 : end], start)

    def _operator(self, start: int) -> _Token:
        for words in _OPERATORS:
            if self._words(words):
                return _Token(" ".join(words), "", start)
        raise SelectorError("expected an operator after the label", start)

    def _words(self, words: tuple[str, ...]) -> bool:
        start = self.at
        for word in words:
            self._skip_blanks()
            if not self.text.startswith(word, self.at):
                self.at = start
                return False
            self.at += len(word)
        if self.at < len(self.text) and self.text[self.at] in _IDENTIFIER:
            self.at = start
            return False
        return True

    def _call(self, start: int) -> _Token | None:
        for name in _CALLS:
            if self.text.startswith(name + "(", start):
                self.at = start + len(name) + 1
                self._skip_blanks()
                label = self._identifier() if name == "has" else ""
                self._skip_blanks()
                if not self.text.startswith(")", self.at):
                    raise SelectorError(f"no closing ) after {name}(", self.at)
                self.at += 1
                return _Token(name, label, start)
        return None

    def _identifier(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in _IDENTIFIER:
            self.at += 1
        if self.at == start:
            raise SelectorError("expected a label", start)
        if self.at - start > MAX_LABEL:
            raise SelectorError(f"a label longer than {MAX_LABEL} characters", start)
        return self.text[start : self.at]


class _Parser:
    """Recursive descent: `or` of `and` of negated atoms."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0

    def parse(self) -> Selector:
        tree = self._either()
        if self._peek().kind != "end":
            raise SelectorError("expected && or || or the end", self._peek().position)
        return tree

    def _peek(self) -> _Token:
        return self.tokens[self.at]

    def _take(self, *kinds: str) -> _Token:
        token = self.tokens[self.at]
        if token.kind not in kinds:
            raise SelectorError(f"expected {' or '.join(kinds)}", token.position)
        self.at += 1
        return token

    def _either(self) -> Selector:
        parts = [self._both()]
        while self._peek().kind == "||":
            self.at += 1
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _both(self) -> Selector:
        parts = [self._operation()]
        while self._peek().kind == "&&":
            self.at += 1
            parts.append(self._operation())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _operation(self) -> Selector:
        negated = False
        while self._peek().kind == "!":
            self.at += 1
            negated = not negated
        atom = self._atom()
        return Not(atom) if negated else atom

    def _atom(self) -> Selector:
        token = self._take("label", "has", "all", "global", "(")
        match token.kind:
            case "has":
                return Has(token.text)
            case "all":
                return All()
            case "global":
                return Global()
            case "(":
                return self._nested(token)
        return self._comparison(token.text)

    def _nested(self, opening: _Token) -> Selector:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise SelectorError(f"more than {MAX_DEPTH} nested parentheses", opening.position)
        inner = self._either()
        self._take(")")
        self.depth -= 1
        return inner

    def _comparison(self, label: str) -> Selector:
        operator = self._take("==", "!=", "in", "not in", *_TEXT).kind
        if operator in _TEXT:
            return Text(label, operator, self._take("string").text)
        if operator in ("==", "!="):
            found: Selector = equals(label, self._take("string").text)
        else:
            found = In(label, self._string_set())
        return Not(found) if operator in ("!=", "not in") else found

    def _string_set(self) -> frozenset[str]:
        self._take("{")
        values: list[str] = []
        while self._peek().kind == "string":
            values.append(self._take("string").text)
            if self._peek().kind != ",":
                break
            self.at += 1
        self._take("}")
        return frozenset(values)


def parse(text: str) -> Selector:
    """The tree of Calico's textual form; the empty text selects everything."""
    if len(text) > MAX_LENGTH:
        raise SelectorError(f"a selector longer than {MAX_LENGTH} characters", MAX_LENGTH)
    tokens = _Scanner(text).tokens()
    return All() if tokens[0].kind == "end" else _Parser(tokens).parse()
