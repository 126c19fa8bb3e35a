"""The rule of English in all that users read: at most one "that", "what", "which" or "those" a sentence."""

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.support import TOP

WORDS = re.compile(r"\b(that|what|which|those|whoever|whatever)\b", re.I)
END = re.compile(r"(?<=[.!?:;])\s+|\s\|\s|\n")
RULE = ("a sentence has at most one", "worse  ", "where, what, and what to do", "what waits, what is dropped")
"""The rule itself, its examples, and a heading."""


def sentences(text):
    """The sentences of a document, without blocks of code, code in lines, and addresses of links."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`\n]*`", "X", text))
    return [sentence for sentence in END.split(text) if sentence.strip()]


class EnglishTests(SynchronousTestCase):
    """README, CONTRIBUTING and docs; the options' texts are in docs/reference.md."""

    def test_pronouns(self):
        """No sentence stacks pronouns in place of nouns."""
        found = []
        for path in [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "docs").glob("*.md"))]:
            for sentence in sentences(path.read_text("utf-8")):
                if len(WORDS.findall(sentence)) > 1 and not any(words in sentence for words in RULE):
                    found.append(f"{path.name}: {sentence}")
        self.assertEqual([], found)

    def test_sentences(self):
        """Code does not count; a cell of a table is a sentence, and a semicolon ends one."""
        self.assertEqual(["| a", "b;", "c |"], sentences("| a | b; c |"))
        self.assertEqual(["That is X.", "which"], sentences("That is `what that`.\nwhich\n```\nthose\n```\n"))
