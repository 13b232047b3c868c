"""The pages lead where they say: links, files, make targets and commands that they name are there.

Owns: reading the project's own Markdown. Never: judges prose, or follows a link to another site.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import click
import pytest

from engine.cli import towpath

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
PRESENT = [page for page in PAGES if "benchmarks" not in page.parts and page.name != "CHANGELOG.md"]  # the others tell what was

LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`\n]+)`")
OURS = re.compile(r"(?:fastpath|engine|tests|bench|tools|docs|examples)/[\w./*-]*[\w*/]")
MADE = re.compile(r"\b(?:build|docs/benchmarks)/")  # by running something
TARGET = re.compile(r"^(\w[\w-]*):(?!=)", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    return {re.sub(r"[^\w -]", "", text.lower()).strip().replace(" ", "-") for text in HEADING.findall(page.read_text())}


def typed(page: Path) -> Iterator[str]:
    """Every line of a block, indented or fenced, without what is a comment."""
    text = page.read_text()
    lines = [line for block in FENCED.findall(text) for line in block.splitlines()]
    lines += [line for line in FENCED.sub("", text).splitlines() if line.startswith("    ")]
    return (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines)


def named(page: Path) -> Iterator[str]:
    """Every piece in backquotes."""
    return (text.strip() for text in INLINE.findall(FENCED.sub("", page.read_text())))


# -- places --------------------------------------------------------------------
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page):
    for text, target in LINK.findall(page.read_text()):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), f"{text}: {target}"
        assert not anchor or anchor in anchors(found), f"{text}: {target}"
        if re.search(r"\.\w+$", text):
            assert Path(path).name == Path(text).name, f"the link {text} leads to {target}"


@pytest.mark.parametrize("page", PRESENT, ids=name)
def test_files_that_are_named_are_there(page):
    files = {found.rstrip(".") for found in OURS.findall(page.read_text()) if not MADE.match(found)}
    missing = [file for file in files if not (ROOT / file).exists() and not list(ROOT.glob(file))]
    assert [file for file in missing if "NAME" not in file] == []


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_section_stands_twice(page):
    headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(set(headings))


# -- commands ------------------------------------------------------------------
def test_make_targets_that_are_named_are_there():
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    assert "test" in targets
    lines = [line for page in PAGES for line in (*typed(page), *named(page))]
    found = {target for line in lines for target in re.findall(r"^make (\w[\w-]*)$", line)}
    assert len(found) > 5
    assert found - targets == set()


def parsed(words: list[str]) -> None:
    """Have the command line read `words` as it would to run them. click.UsageError when it cannot."""
    command: click.Command | None = towpath
    context = click.Context(towpath, info_name="towpath")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        word, command, words = command.resolve_command(context, words)
        assert command is not None
        context = click.Context(command, info_name=word, parent=context)
    with command.make_context(context.info_name, list(words), parent=context.parent):
        pass


def commands(pieces: Callable[[Path], Iterator[str]]) -> list[tuple[str, str]]:
    """(page, command) of all that could be run: what shows alternatives or leaves something out cannot."""
    found = {
        (name(page), re.sub(r"\s*(?:&|>.*|\|.*)$", "", text))
        for page in PRESENT
        for text in pieces(page)
        if text.startswith("towpath ")
    }
    return sorted((page, text) for page, text in found if not re.search(r"[\[|…(]|\.\.\.|\b[A-Z]{3,}\b", text))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files that a command opens while it reads its arguments."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "web.yaml").touch()


@pytest.mark.parametrize(("page", "text"), commands(typed))
def test_commands_in_the_pages_are_ones(page, text, files):
    parsed(shlex.split(text)[1:])


@pytest.mark.parametrize(("page", "text"), commands(named))
def test_commands_named_in_prose_are_ones(page, text, files):
    with suppress(click.MissingParameter):  # a name and no more
        parsed(shlex.split(text)[1:])


def test_commands_were_found():
    assert len(commands(typed)) > 25
    assert len(commands(named)) > 15


@pytest.mark.parametrize("wrong", ["towpath stauts", "towpath demo --mode gre", "towpath policy explain a", "towpath run -x"])
def test_a_wrong_command_would_be_found(wrong):
    with pytest.raises(click.UsageError):
        parsed(shlex.split(wrong)[1:])
