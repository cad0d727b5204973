"""Words for what is to be encoded: items, behaviour and context."""

import re
import string
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import polars as pl

from recloom.errors import ConfigError
from recloom.events import VECTOR_PREFIX

YEAR_COLUMNS = frozenset({"year", "release_year", "publication_year", "年份"})
"""Numbers that belong to the title, as in "Toy Story (1995)"."""
PRICE_COLUMNS = frozenset({"price", "价格"})
"""Numbers that help to name an item which has no title."""
ANOTHER_SCRIPT = 0.1
"""Share of a text's letters, and of a catalogue's texts, from which on an English encoder does not do."""

_SEASONS = ("winter", "spring", "summer", "autumn")
_DAY_PARTS = ((6, "night"), (12, "morning"), (18, "afternoon"), (24, "evening"))
_ADDRESS = re.compile(r"(?:https?://|data:)\S+|\S+\.(?:jpe?g|png|gif|webp|svg)", re.IGNORECASE)
_BRACKETS = {"(": ")", "[": "]", "（": "）", "【": "】", '"': '"', "《": "》"}


def item_texts(items: pl.DataFrame, template: str | None = None) -> list[str]:
    """Say in one text what the catalogue knows of each item.

    Without a template a text is the item's title, with its year in brackets where there is a column
    `year`, and then every other text column as "column: value"; values joined by "|" become a list.
    Left out: numbers, columns of identifiers (`..._id`), of image names or web addresses, of vectors (`vector:...`).
    Where a single text column is all there is, a text is what `item_titles` says.

    Args:
        items: The catalogue, one row for each item.
        template: Text with columns in braces, such as "{title} by {brand}". Where a value is missing,
            the words and brackets that belong to it go too.

    Returns:
        One text a row; "" where nothing is known.

    Raises:
        ConfigError: The template is malformed, or names no column or an unknown one.

    >>> item_texts(pl.DataFrame({"item_id": ["1"], "title": ["Toy Story"], "genres": ["Animation|Comedy"]}))
    ['Toy Story. genres: Animation, Comedy']
    """
    if template is not None:
        return _fill_template(items, template)
    titles = _titles_with_year(items)
    others = [name for name in _text_columns(items) if name != "title"]
    if not any(titles) and len(others) <= 1:
        return item_titles(items)
    columns = {name: _listed(items[name]) for name in others}
    texts = []
    for row, title in enumerate(titles):
        parts = [title] if title else []
        parts += [f"{name}: {values[row]}" for name, values in columns.items() if values[row]]
        texts.append(". ".join(parts))
    return texts


def item_titles(items: pl.DataFrame) -> list[str]:
    """Return a short name of each item, for people to read and for `behavior_text`.

    It is the title with the year, else the first text the row has, with the price where the
    catalogue has a price; "" where there is neither title nor text.

    >>> item_titles(pl.DataFrame({"item_id": ["1001"], "商品类别": ["电子产品"], "价格": [1000.0]}))
    ['电子产品 1000']
    """
    others = [_listed(items[name]) for name in _text_columns(items) if name != "title"]
    price = next((name for name in items.columns if name.lower() in PRICE_COLUMNS), None)
    prices = _strings(items[price]) if price is not None else [""] * len(items)
    titles = []
    for row, title in enumerate(_titles_with_year(items)):
        first = next((values[row] for values in others if values[row]), "")
        titles.append(title or (f"{first} {prices[row]}".strip() if first else ""))
    return titles


def behavior_text(events: Sequence[tuple[str, str, str]]) -> str:
    """Say what a person did, oldest first.

    Args:
        events: (behavior, item_id, title) of each interaction; the title may be "".

    >>> behavior_text([("view", "1", "Toy Story (1995)"), ("点击", "1001", "")])
    'view Toy Story (1995); 点击#1001#'
    """
    return "; ".join(
        f"{behavior} {title}" if title else f"{behavior}#{item_id}#" for behavior, item_id, title in events
    )


def context_text(timestamp: int | None, columns: Mapping[str, str], interests: str | Iterable[str] = "") -> str:
    """Say where and when something happened, and what the person likes; what is unknown is left out.

    Weekday, time of day and season are those of UTC and of the northern hemisphere.

    Args:
        timestamp: UTC seconds.
        columns: Context as the log has it, such as location and device. A value without a letter
            is said with its column's name.
        interests: Declared interests: a text, in which "|" separates them, or one text each.

    >>> context_text(1_704_571_200, {"location": "Shanghai", "device": "mobile"}, "jazz|cooking")
    'Shanghai, mobile, Saturday evening, winter, interests: jazz, cooking'
    """
    parts = [value if any(map(str.isalpha, value)) else f"{name} {value}" for name, value in columns.items() if value]
    if timestamp is not None:
        moment = datetime.fromtimestamp(timestamp, UTC)
        day_part = next(name for until, name in _DAY_PARTS if moment.hour < until)
        parts += [f"{moment:%A} {day_part}", _SEASONS[moment.month % 12 // 3]]
    if liked := _as_list(interests) if isinstance(interests, str) else ", ".join(interests):
        parts.append(f"interests: {liked}")
    return ", ".join(parts)


def suggest_encoder(texts: Sequence[str]) -> str:
    """Name the packaged encoder that can read these texts.

    An English encoder knows nothing of a text in another script, while the multilingual one reads English too: a
    tenth of the catalogue is enough to decide for it. Texts are counted rather than letters, since a Chinese title has
    a third of the letters of its translation.

    Returns:
        "multilingual" where at least a tenth of the texts have a tenth of their letters outside the Latin script,
        else "minilm".
    """
    is_other = [_is_in_another_script(text) for text in texts[:: max(1, len(texts) // 2000)] if text]
    return "multilingual" if any(is_other) and sum(is_other) >= ANOTHER_SCRIPT * len(is_other) else "minilm"


def _is_in_another_script(text: str) -> bool:
    letters = [ord(character) for character in text if character.isalpha()]
    latin = sum(code < 0x250 or 0x1E00 <= code < 0x1F00 for code in letters)
    return bool(letters) and len(letters) - latin >= ANOTHER_SCRIPT * len(letters)


def _titles_with_year(items: pl.DataFrame) -> list[str]:
    if "title" not in items.columns:
        return [""] * len(items)
    titles = _strings(items["title"])
    year = next((name for name in items.columns if name.lower() in YEAR_COLUMNS), None)
    if year is None:
        return titles
    return [
        f"{title} ({year})" if title and year and year not in title else title
        for title, year in zip(titles, _strings(items[year]), strict=True)
    ]


def _text_columns(items: pl.DataFrame) -> list[str]:
    """Return the names of the columns that hold words, in order."""
    return [
        column.name
        for column in items
        if column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.List(pl.String))
        and column.name.lower() not in {"image", *YEAR_COLUMNS, *PRICE_COLUMNS}
        and not column.name.startswith(VECTOR_PREFIX)
        and not column.name.lower().endswith("_id")
        and not _holds_addresses(column)
    ]


def _holds_addresses(column: pl.Series) -> bool:
    present = [value for value in _strings(column.drop_nulls().head(1000)) if value]
    return bool(present) and all(_ADDRESS.fullmatch(value) for value in present)


def _strings(column: pl.Series) -> list[str]:
    """Spell the values of a column: "" for null, no ".0" behind whole numbers, lists joined by commas."""
    if isinstance(column.dtype, pl.List):
        column = column.cast(pl.List(pl.String)).list.join(", ")
    if column.dtype.is_float():
        return ["" if value is None or value != value else f"{value:.15g}" for value in column.to_list()]
    return [value.strip() for value in column.cast(pl.String).fill_null("").to_list()]


def _listed(column: pl.Series) -> list[str]:
    return [_as_list(value) for value in _strings(column)]


def _as_list(value: str) -> str:
    return ", ".join(part.strip() for part in value.split("|") if part.strip())


def _fill_template(items: pl.DataFrame, template: str) -> list[str]:
    parts = _parse_template(template, items.columns)
    columns = {name: (_strings if name == "title" else _listed)(items[name]) for _, name, _ in parts if name}
    return [_fill(parts, {name: values[row] for name, values in columns.items()}) for row in range(len(items))]


def _parse_template(template: str, columns: Sequence[str]) -> list[tuple[str, str, tuple[str, str]]]:
    """Cut a template into (words before, column, brackets around); the words at the end have the column ""."""
    found = "{" + "}, {".join(columns) + "}"
    try:
        pieces: list[tuple[str, str | None, Any, Any]] = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"the template {template!r} cannot be read ({error}); use columns: {found}") from None
    for _, name, spec, conversion in pieces:
        if name is not None and (name not in columns or spec or conversion):
            raise ConfigError(f"the template {template!r} names an unknown column {name!r}; found {found}")
    if all(name is None for _, name, _, _ in pieces):
        raise ConfigError(f"the template {template!r} names no column; use some of {found}")
    literals = [literal for literal, *_ in pieces] + [""]
    parts = []
    for index, (_, name, _, _) in enumerate(pieces):
        opening, closing = literals[index][-1:], literals[index + 1][:1]
        brackets = ("", "")
        if name and closing and _BRACKETS.get(opening) == closing:
            brackets = (opening, closing)
            literals[index], literals[index + 1] = literals[index][:-1], literals[index + 1][1:]
        parts.append((literals[index], name or "", brackets))
    return parts


def _fill(parts: Sequence[tuple[str, str, tuple[str, str]]], values: Mapping[str, str]) -> str:
    """Fill a template for one item; the words before a missing value are dropped with it."""
    text = ""
    for position, (words, name, (opening, closing)) in enumerate(parts):
        if not name:
            text += words if text else ""
        elif values[name]:
            before = words if text or position == 0 else _after_separator(words)
            text += f"{before}{opening}{values[name]}{closing}"
    return text.strip()


def _after_separator(words: str) -> str:
    """Of words between two columns, return those about the second: of "; brand: " that is "brand: "."""
    found = re.fullmatch(r".*[;,.|\n]\s*(.*)", words, re.DOTALL)
    return found[1] if found else ""
