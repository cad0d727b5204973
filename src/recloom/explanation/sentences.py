"""Reasons as data -> one or two sentences a person can read, from templates, in English or Chinese.

A sentence says nothing that the reasons do not hold, and names no item but those of the history.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from recloom.errors import ConfigError
from recloom.explanation.reasons import Reason

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
LONGEST_TITLE = 80
"""Letters of a title that a sentence quotes."""
STRONG_CONTEXT = 0.5
"""Share of the strongest interaction's contribution from which on a part of the context is told too."""


@dataclass(frozen=True)
class _Words:
    """What a language says."""

    verbs: dict[str, str]
    """By the beginning of a behaviour's name; "" for any other."""
    quoted: str
    joined: str
    last: str
    """Between the last two titles of one verb, and between two verbs."""
    because: str
    popular_too: str
    popular: str
    new: str
    time_too: str
    context_too: str
    pinned: str
    boosted: str
    lowered: str
    nothing: str
    space: str


_WORDS = {
    "en": _Words(
        verbs={
            "view": "viewed", "click": "looked at", "watch": "watched", "play": "played", "listen": "listened to",
            "read": "read", "purchase": "bought", "buy": "bought", "cart": "put in the cart", "like": "liked",
            "rat": "rated", "enrol": "enrolled in", "bookmark": "saved", "comment": "commented on", "share": "shared",
            "follow": "followed", "点击": "looked at", "浏览": "viewed", "观看": "watched", "播放": "played",
            "购买": "bought", "下单": "ordered", "加购": "put in the cart", "收藏": "saved", "点赞": "liked",
            "喜欢": "liked", "评论": "commented on", "评分": "rated", "分享": "shared", "关注": "followed",
            "报名": "enrolled in", "": "chose",
        },
        quoted="“{}”", joined=", ", last=" and ", because="Because you {}.", popular_too="It is popular, too.",
        popular="Because many people take it.", new="It is new; its description is close to what you chose.",
        time_too="It suits the time you are asking at.", context_too="It suits the situation ({}).",
        pinned="A rule of the service puts it here.", boosted="A rule of the service moves it up.",
        lowered="A rule of the service moves it down.",
        nothing="No single thing you did explains this one.", space=" ",
    ),
    "zh": _Words(
        verbs={
            "view": "看过", "click": "点过", "watch": "看过", "play": "玩过", "listen": "听过", "read": "读过",
            "purchase": "买过", "buy": "买过", "cart": "加购过", "like": "喜欢过", "rat": "评过", "enrol": "报名过",
            "bookmark": "收藏过", "comment": "评论过", "share": "分享过", "follow": "关注过", "点击": "点过",
            "浏览": "看过", "观看": "看过", "播放": "播放过", "购买": "买过", "下单": "买过", "加购": "加购过",
            "收藏": "收藏过", "点赞": "赞过", "喜欢": "喜欢过", "评论": "评论过", "评分": "评过", "分享": "分享过",
            "关注": "关注过", "报名": "报名过", "": "选过",
        },
        quoted="《{}》", joined="、", last="和", because="因为你{}。", popular_too="它也很受欢迎。",
        popular="因为很多人都选了它。", new="这是新内容，简介与你选过的相近。", time_too="它也适合现在这个时间。",
        context_too="它也适合当前情境（{}）。", pinned="由服务的规则放在此处。", boosted="服务的规则提高了它的排名。",
        lowered="服务的规则降低了它的排名。", nothing="没有哪一次行为能单独解释这条推荐。", space="",
    ),
}  # fmt: skip


def checked_language(language: str) -> Language:
    """Return a language that there are sentences in.

    Raises:
        ConfigError: There are none.
    """
    for known in LANGUAGES:
        if language == known:
            return known
    raise ConfigError(f"there are no sentences in the language {language!r}; choose {' or '.join(LANGUAGES)}")


def sentence_of(reasons: Sequence[Reason], language: Language = "en") -> str:
    """Say the reasons of one item.

    >>> sentence_of([Reason("history", 1.2, "1", "活着", "view")], "zh")
    '因为你看过《活着》。'
    """
    words = _WORDS[language]
    if any(reason.name == "pinned" for reason in reasons if reason.kind == "rules"):
        return words.pinned  # whatever else speaks for the item did not bring it there
    past = [reason for reason in reasons if reason.kind == "history" and _raised(reason)]
    strongest = max((reason.contribution or 0.0 for reason in past), default=0.0)
    kinds = {reason.kind for reason in reasons}
    said = [words.because.format(_deeds(past, words))] if past else []
    for reason in reasons:
        if reason.kind == "context" and (reason.contribution or 0) > STRONG_CONTEXT * strongest:
            is_time = reason.name == "time"
            said.append(words.time_too if is_time else words.context_too.format(reason.name))
    # What is new may owe its place to the popularity prior, but popular it is not.
    is_liked = any(r.kind == "popularity" and (r.contribution or 0) > strongest for r in reasons)
    if is_liked and not {"popular", "new"} & kinds:
        said.append(words.popular_too if past else words.popular)
    if "popular" in kinds:
        said.append(words.popular)
    if "new" in kinds:
        said.append(words.new)
    said += [words.boosted if (r.contribution or 0) > 0 else words.lowered for r in reasons if r.kind == "rules"]
    return words.space.join(said) or words.nothing


def _raised(reason: Reason) -> bool:
    return reason.contribution is None or reason.contribution > 0


def _deeds(past: Sequence[Reason], words: _Words) -> str:
    """Say what somebody did with which items, each item once."""
    titles_by_verb: dict[str, list[str]] = {}
    seen: set[str | None] = set()
    for reason in past:
        if reason.item_id not in seen:
            seen.add(reason.item_id)
            titles_by_verb.setdefault(_verb(reason.behavior or "", words), []).append(quotable(reason.title or ""))
    deeds = [f"{verb}{words.space}{_listed([words.quoted.format(t) for t in titles], words)}"
             for verb, titles in titles_by_verb.items()]  # fmt: skip
    return _listed(deeds, words)


def quotable(title: str) -> str:
    """Shorten a title to what a sentence quotes."""
    return title if len(title) <= LONGEST_TITLE else f"{title[:LONGEST_TITLE].rstrip()}…"


def _verb(behavior: str, words: _Words) -> str:
    name = behavior.casefold()
    return next(verb for beginning, verb in words.verbs.items() if name.startswith(beginning))


def _listed(parts: Sequence[str], words: _Words) -> str:
    return words.last.join([words.joined.join(parts[:-1]), parts[-1]]) if len(parts) > 1 else parts[0]
