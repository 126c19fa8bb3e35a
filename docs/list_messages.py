"""Writes docs/messages.md: mistakes and their messages from the table of the tests, log messages from the source.

python docs/list_messages.py > docs/messages.md
"""

import ast
import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.unit import table_of_mistakes as table  # noqa: E402
from ulogd_tw import config, tap  # noqa: E402

COMMAND = "python docs/list_messages.py > docs/messages.md"
LEVELS = {"warn": "warning", "error": "error", "critical": "fatal"}
TREE = TOP / "ulogd_tw"


def said(text, words):
    """The message of a configuration that has these words, without its place."""
    found = (str(m) for m in tap.Built(config.parse(text, "f"), prepare=False).mistakes)
    message = next(m for m in found if all(word in m for word in words))
    return re.sub(r"^f(:\d+)?: ", "", message).partition("\n")[0]


def cell(text):
    """A text as a cell of a table, as code."""
    text = text.replace("|", "\\|").replace("\0", "\\0")
    return f"``{text}``" if "`" in text else f"`{text}`"


def rows():
    """(what is written, what is said) of every row of the table."""
    for stack, section, lines, words in table.OPTIONS:
        text = f"[global]\nstack={stack}\n[{section}]\n{lines}\n"
        yield f"[{section}] {lines.splitlines()[0]}", said(text, words)
    for text, line, words in table.FILES:
        lines = text.split("\n")
        yield lines[line - 1] if line else lines[0], said(text, words)


def _says(text):
    """Whether a text has more than places for other texts."""
    return len(re.findall(r"[a-z]{2,}", re.sub(r"\{[^}]*\}", "", text))) > 1


def logged():
    """(module, level, text) of every line of the log at warning or above."""
    for path in sorted(TREE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                owner, first = node.func.value, node.args[0] if node.args else None
                log = getattr(owner, "attr", getattr(owner, "id", ""))
                if (
                    log == "log"
                    and isinstance(first, ast.Constant)
                    and isinstance(first.value, str)
                    and _says(first.value)
                ):
                    yield path.relative_to(TREE).as_posix(), LEVELS[node.func.attr], first.value


def page():
    """The lines of the document."""
    yield from (
        "# Messages", "", f"Made by `{COMMAND}` from the table that the tests check, and from the source.", "",
        "## Mistakes in configurations", "",
        "A message begins with the file and the line of the mistake, as in `/etc/ulogd.conf:14:`.", "",
        "| written | message |", "|---|---|",
    )  # fmt: skip
    for written, message in dict.fromkeys(rows()):
        yield f"| {cell(written) if written else 'an empty file'} | {cell(message)} |"
    yield from (
        "", "## Warnings and errors in the log", "",
        "Words in braces stand for an instance, a peer, a number or a reason.", "",
        "| module | level | message |", "|---|---|---|",
    )  # fmt: skip
    for module, level, text in dict.fromkeys(logged()):
        yield f"| `{module}` | {level} | {cell(text)} |"


if __name__ == "__main__":
    print("\n".join(page()))
