"""Markdown as the reference writes it, as the source of man pages (man(7))."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator

WIDTH = 78
"""The widest line of a source; mandoc complains beyond 80."""


def page(name: str, section: int, summary: str, date: str, source: str, body: Iterable[str]) -> str:
    """A whole page: its head, its name, and the lines of the rest."""
    title = escaped(name.upper())
    head = [f'.TH {title} {section} "{date}" "{escaped(source)}" "{escaped("ulogd_tw")}"', ".SH NAME"]
    return "\n".join([*head, *text(f"{name} - {summary}", dash=True), *body]) + "\n"


def escaped(words: str) -> str:
    """A text in which nothing is an instruction."""
    return words.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")


def text(words: str, dash: bool = False) -> Iterator[str]:
    """The lines of a paragraph, a sentence begins a line; `code` and **bold** are bold.

    With `dash` the first ``-`` with blanks around it stays as it is, as whatis(1) wants it.
    """
    words = re.sub(r"\[([^]]+)\]\([^)]*\)", r"\1", words).replace("<br>", ", ")
    for sentence in re.split(r"(?<=[.;:?!]) (?=[A-Z`*])", " ".join(words.split())):
        for line in textwrap.wrap(sentence, WIDTH - 14, break_long_words=False, break_on_hyphens=False):
            marked = _marked(line)
            if dash:
                marked = marked.replace(" \\- ", " \\- ", 1)
            yield f"\\&{marked}" if marked[:1] in (".", "'") else marked


def _marked(line: str) -> str:
    parts = re.split(r"(`[^`]*`|\*\*[^*]*\*\*)", line)
    found = []
    for part in parts:
        bold = len(part) > 2 and (part[0] == part[-1] == "`" or part[:2] == part[-2:] == "**")
        found.append(f"\\fB{escaped(part.strip('`*'))}\\fP" if bold else escaped(part))
    return "".join(found)


def body(markdown: Iterable[str]) -> Iterator[str]:
    """The lines of a page for the lines of Markdown: headings, paragraphs, lists and tables."""
    table: list[list[str]] = []
    fresh = True
    """True behind a heading, where no new paragraph begins."""
    for line in (*markdown, ""):
        if line.startswith("|"):
            table.append(cells(line))
            continue
        if table:
            yield from _table(table)
            table, fresh = [], False
        if heading := re.match(r"(#+) (.*)", line):
            yield f".SH {_heading(heading[2])}"
            fresh = True
        elif bold := re.fullmatch(r"\*\*([^*]+)\*\*(.*)", line):
            yield f".SS {_marked(re.sub(r'[][]|[(][^)]*[)]', '', bold[1] + bold[2]))}"
            fresh = True
        elif line.startswith("    "):
            yield from (".nf", escaped(line.strip()), ".fi")
            fresh = False
        elif line.startswith("- "):
            yield ".IP \\(bu 2"
            yield from text(line[2:])
            fresh = False
        elif line:
            yield from text(line)
            fresh = False
        elif not fresh:
            yield ".PP"
            fresh = True


def _heading(words: str) -> str:
    return escaped(words.upper())


def cells(line: str) -> list[str]:
    """The cells of a row of a table."""
    return [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def _table(rows: list[list[str]]) -> Iterator[str]:
    """A table as a list of terms: the first cell, and what the others say of it."""
    heads, *others = [row for row in rows if not all(set(cell) <= {"-"} for cell in row)]
    for first, *rest in others:
        said = {head: cell for head, cell in zip(heads[1:], rest, strict=True) if cell}
        meaning = said.pop("meaning", "") or said.pop("what it does", "")
        facts = "; ".join(f"{head}: {cell}" for head, cell in said.items())
        yield ".TP"
        yield _marked(first)
        lines = [*text(meaning)] + ([*text(f"({facts})")] if facts else [])
        yield from lines or ["\\&"]


def tidy(source: str) -> str:
    """A page made by others: no empty lines, no line that is too long, no two paragraphs in one place."""
    lines: list[str] = []
    for line in source.splitlines():
        if not line.strip():
            line = ".PP"
        if line.startswith((".S", ".TP", ".IP", ".nf")):
            while lines and lines[-1] == ".PP":
                lines.pop()
        if line == ".PP" and lines and (lines[-1] == ".PP" or lines[-1].startswith(".S")):
            continue
        if len(line) > WIDTH and line[0] != ".":
            lines += _folded(line)
        else:
            lines.append(line)
    while lines and lines[-1] == ".PP":
        lines.pop()
    return "\n".join(lines) + "\n"


def _folded(line: str) -> list[str]:
    found = textwrap.wrap(line, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [f"\\&{part}" if part[:1] in (".", "'") else part for part in found]
