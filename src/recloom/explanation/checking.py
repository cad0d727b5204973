"""A text that a language model wrote, and the facts it was given -> what is wrong with it, if anything.

Nothing is believed: beside the titles and words of the facts a text may hold nothing but plain words, which claim
nothing by themselves. So it can name no other item, number, person or quality, and deny nothing.
"""

import re
from collections.abc import Collection, Iterable

from recloom.explanation.sentences import Language

LONGEST = 400
"""Letters of a text."""
LONGEST_NAME = 12
"""Words of a title that are looked for in a text."""
_QUOTED = re.compile(r"“([^”]*)”|\"([^\"]*)\"|《([^》]*)》|「([^」]*)」|『([^』]*)』")
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W_\u3040-\u30ff\u3400-\u9fff]+")
_YEAR = re.compile(r"\s*\(\d{4}\)$")
_PLAIN_ENGLISH = (
    "a after all also an and are as at based be because been both by can choice choices chose chosen close"
    " could enjoy enjoying fit fits for from given good great had has have here hope how i in interest"
    " interested is it it's its just like likes looks makes many match matches may might more"
    " much of on one or our others past people pick picked picks recommend recommended"
    " s saw seem seems seen since so some something suggest suggested suggestion taste"
    " tastes that that's the them then these they think this those thought to too u up very was we well were"
    " what which while who why with would you you'd you'll you're you've your d ll re ve"
)
PLAIN: dict[Language, frozenset[str]] = {
    "en": frozenset(_PLAIN_ENGLISH.split()),
    "zh": frozenset("因为你您过的了也很它这个这些都和与还有是为我们推荐给所以根据基于最近之前喜欢可能会在选择看"),
}
"""Words, or letters, that say nothing of their own."""


def problem_with(text: str, template: str, titles: Collection[str], others: "Titles", language: Language) -> str:
    """Say what is wrong with a text; "" where nothing is.

    Args:
        text: What was written.
        template: The sentence of the template: its words are facts.
        titles: Titles of the history that it names.
        others: Titles of the catalogue.
        language: Which words are plain.
    """
    if not text or len(text) > LONGEST or len(text.splitlines()) > 2:
        return f"it has {len(text)} letters in {len(text.splitlines())} lines; wanted one or two sentences"
    if titles and not any(title in text for title in titles):
        return "it names none of the interactions that it was given"
    for found in _QUOTED.finditer(text):
        quoted = next(part for part in found.groups() if part is not None)
        if quoted.rstrip(".,!?。，！") not in titles and quoted not in titles:
            return f"it quotes {quoted!r}, which is no fact"
    rest = text
    for title in sorted(titles, key=len, reverse=True):
        rest = rest.replace(title, " ◦ ")
    known = {word.casefold() for word in _WORD.findall(_without(template, titles))} | PLAIN[language]
    if strange := [word for word in _WORD.findall(rest.replace("’", "'")) if word.casefold() not in known]:
        return f"it says {strange[0]!r}, which is no fact"
    if named := others.named_in(rest):
        return f"it names {named!r}, which is not in the facts"
    return ""


def _without(text: str, titles: Iterable[str]) -> str:
    for title in titles:
        text = text.replace(title, " ")
    return text


class Titles:
    """The titles of a catalogue, to be found in a text."""

    def __init__(self, titles: Iterable[str]) -> None:
        self._known: dict[tuple[str, ...], str] = {}
        for title in titles:
            words = _words(_YEAR.sub("", title))
            if 2 <= len(words) <= LONGEST_NAME:
                self._known[words] = title

    def named_in(self, text: str) -> str:
        """Return a title of two words or more that a text names; "" where it names none."""
        for part in text.split("◦"):
            words = _words(part)
            for begin in range(len(words)):
                for end in range(begin + 2, min(len(words), begin + LONGEST_NAME) + 1):
                    if (found := self._known.get(words[begin:end])) is not None:
                        return found
        return ""


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in _WORD.findall(text))
