"""`recloom explain`: a model, somebody's history and an item to where its score comes from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from recloom.cli.console import PseudonymKey, console, parse_pairs, read_pseudonyms
from recloom.errors import ConfigError
from recloom.explanation import Explanation, Reason
from recloom.files import replacing
from recloom.recommender import Recommender

_PARTS = {
    "id": "the item's id: what was learned of who takes it",
    "text": "the item's text",
    "id and text": "the item's id and text",
    "popularity": "popularity, against the average item",
    "any item": "popularity, what the average item gets",
}


def explain(
    model: Annotated[Path, typer.Argument(help="Folder that recloom fit wrote.")],
    item: Annotated[str | None, typer.Argument(help="Item id. Unset: the first that is recommended.")] = None,
    user: Annotated[str | None, typer.Option(help="A user of the dataset.")] = None,
    history: Annotated[str | None, typer.Option(help="Item ids, oldest first: A,B,C.")] = None,
    pseudonym_key: PseudonymKey = None,
    context: Annotated[list[str], typer.Option(help="The situation now: location=Shanghai. Repeatable.")] = [],  # noqa: B006
    words: Annotated[bool, typer.Option(help="Whether to try each word of the item's text.")] = True,
    language: Annotated[str, typer.Option(help="Of the sentence: en or zh.")] = "en",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write everything here too.")] = None,
) -> None:
    """Say why an item has the score it has: every interaction, word and part of the context taken away in turn."""
    if (user is None) == (history is None):
        raise ConfigError("say for whom, in one way: --user ID or --history A,B,C")
    recommender = Recommender.load(model)
    if user is not None and (pseudonyms := read_pseudonyms(pseudonym_key)):
        user = pseudonyms.of(user)
    ids = None if history is None else [part.strip() for part in history.split(",") if part.strip()]
    situation = parse_pairs("--context", context)
    if item is None:
        ranked = recommender.recommend(user, ids, k=1, context=situation)
        if not ranked.items:
            raise ConfigError("nothing is left to recommend to this history; name an item")
        item = ranked.items[0].item_id
    told = recommender.explain(item, user, ids, context=situation, words=words, language=language)
    if json_file:
        with replacing(json_file) as beside:
            beside.write_text(json.dumps(told.as_dict(), indent=1, ensure_ascii=False), encoding="utf-8")
    _show(told)


def _show(told: Explanation) -> None:
    score = "no score" if told.score is None else f"score {told.score:.3f}"
    console.print(f"{told.item_id} {told.title}, {score}", markup=False, soft_wrap=True)
    console.print(told.sentence, markup=False, soft_wrap=True)
    by_kind: dict[str, list[Reason]] = {}
    for reason in told.reasons:
        by_kind.setdefault(reason.kind, []).append(reason)
    past = [(f"{r.behavior} {r.item_id} {r.title}", _number(r)) for r in by_kind.get("history", [])]
    _table("without this interaction", "the score would be lower by", past)
    _table("without this part of the request", "the score would be lower by", _named(by_kind.get("context", [])))
    parts = [
        (_PARTS.get(r.kind, f"the item's {r.name}"), _number(r))
        for r in told.reasons
        if r.kind in _PARTS or r.kind == "modality"
    ]
    _table("the score is the sum of", "", parts)
    _table("without this word of its text", "the score would be lower by", _named(by_kind.get("word", [])))
    for note in told.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def _named(reasons: Sequence[Reason]) -> list[tuple[str, str]]:
    return [(reason.name or "", _number(reason)) for reason in reasons]


def _number(reason: Reason) -> str:
    return "all of it" if reason.contribution is None else f"{reason.contribution:+.4f}"


def _table(what: str, by: str, rows: Sequence[tuple[str, str]]) -> None:
    if rows:
        table = Table(what)
        table.add_column(by, justify="right")
        for name, number in rows:
            table.add_row(escape(name), number)
        console.print(table)
