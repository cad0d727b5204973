"""A state of the page -> the lists of every variant or model, side by side."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from recloom.dataset import CategoryColumn
from recloom.errors import ConfigError
from recloom.explanation import Reason
from recloom.retrieval import Rules
from recloom.serving.app import SESSION_PREFIX, Service, wanted_from
from recloom.serving.bodies import RecommendationsIn
from recloom.serving.engine import DEFAULT, Served
from recloom.serving.live_model import LiveModel, Shown
from recloom.serving.page.state import State
from recloom.serving.page.words import in_language

MOST_FOUND = 10
"""Items that a search shows."""
MOST_PAST = 8
"""Newest interactions of a person that are shown."""
MOST_CHOICES = 30
"""Words of a context column up to which they are offered as a choice."""


@dataclass(frozen=True)
class Item:
    """An item as people see it."""

    item_id: str
    title: str
    picture: str = ""
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A contribution to a score as it is drawn: in percent of the largest of a list."""

    label: str
    kind: str
    number: str
    begin: float
    width: float
    is_against: bool


@dataclass(frozen=True)
class Place:
    """One place of a list."""

    item: Item
    score: str
    why: str
    bars: Sequence[Bar] = ()


@dataclass(frozen=True)
class List:
    """What one variant or model recommends."""

    label: str
    served: Served
    is_own: bool
    """Whether it is what the person really gets; it counts as shown, then."""
    places: Sequence[Place] = ()
    same: str = ""
    """How much of it the first list has too."""


@dataclass(frozen=True)
class ContextField:
    """A column of the situation, to be filled in."""

    name: str
    is_number: bool
    choices: Sequence[str]


async def lists_of(service: Service, state: State, *, is_logged: bool) -> list[List]:
    """Have a list made by every variant of the running experiment, or else by every model.

    Args:
        service: Who makes them.
        state: For whom, and in which situation.
        is_logged: Whether a person's own list counts as shown.

    Raises:
        RequestValidationError: The state asks for something that cannot be.
        ConfigError: As above.
    """
    engine = service.engine
    person = _person(service, state)
    if engine.experiment is not None:
        own = engine.experiment.variant_of(person).name if person else None
        asked = [(variant.name, variant.model, variant.rules) for variant in engine.experiment.variants]
    else:
        own = DEFAULT if person else None
        asked = [(name, name, Rules()) for name in engine.models]
    wanted = [wanted_from(_body(service, state, model), service) for _, model, _ in asked]
    for want, (label, model, rules) in zip(wanted, asked, strict=True):
        want.is_logged = is_logged and label == own
        if label != own:  # nobody but the engine says what a person gets
            want.model, want.rules = model, rules
    made = [await service.wait(future) for future in [engine.recommend(want) for want in wanted]]
    lists = [List(label, served, label == own) for (label, _, _), served in zip(asked, made, strict=True)]
    return await service.call(lambda: [_spelled(shown, lists[0], in_language(state.language)) for shown in lists])


def _person(service: Service, state: State) -> str:
    person = state.user or (f"{SESSION_PREFIX}{state.session}" if state.session else "")
    return service.known_as(person) if person else ""


def _body(service: Service, state: State, model: str) -> RecommendationsIn:
    columns = service.engine.models.get(model, service.engine.models[DEFAULT]).dataset.context
    context: dict[str, Any] = {}
    for name, value in state.context.items():
        if name in columns:
            context[name] = value if isinstance(columns[name], CategoryColumn) else _number(name, value)
    try:
        return RecommendationsIn.model_validate({**state.who, "k": state.k, "context": context, "explain": True,
                                                "language": state.language or "en"})  # fmt: skip
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def _number(name: str, value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ConfigError(f"the value {value!r} of {name} has to be a number, as in the log")
    return number


def _spelled(shown: List, first: List, t: Callable[[str], str]) -> List:
    """Put a list into words; to be run by the engine's thread."""
    model, items = shown.served.model, shown.served.answer.items
    largest = max((abs(reason.contribution or 0.0) for place in items for reason in _told(place)), default=0.0)
    places = [
        Place(item_of(model, place.item_id), t("pinned") if place.score is None else f"{place.score:.3g}",
              place.why.sentence if place.why else "", [_bar(reason, largest, t) for reason in _told(place)])
        for place in items
    ]  # fmt: skip
    same = ""
    if shown is not first and items:
        ids = {place.item_id for place in first.served.answer.items}
        count = sum(place.item_id in ids for place in items)
        same = t("{} of {} also in {}").format(count, len(items), first.label)
    return List(shown.label, shown.served, shown.is_own, places, same)


def _told(place: Shown) -> list[Reason]:
    """Return the reasons that have a length."""
    return [reason for reason in place.why.reasons if reason.contribution is not None] if place.why else []


def _bar(reason: Reason, largest: float, t: Callable[[str], str]) -> Bar:
    """Draw a contribution: what speaks for an item to the right of the middle, what speaks against it to the left."""
    number = reason.contribution or 0.0
    width = 50 * abs(number) / largest if largest else 0.0
    name = t(reason.name) if reason.name in _NAMED_HERE else reason.name
    label = reason.title or name or t(_PARTS.get(reason.kind, reason.kind))
    begin = 50 - width if number < 0 else 50.0
    return Bar(label, reason.kind.split()[0], f"{number:+.3f}", round(begin, 2), round(width, 2), number < 0)


_NAMED_HERE = ("time", "image", "pinned", "boost")
"""Names of reasons that are not the data's."""
_PARTS = {
    "id": "who takes it (id)",
    "text": "what it says (text)",
    "id and text": "id and text",
    "popularity": "its popularity",
    "any item": "what any item gets",
}


# Items


def item_of(model: LiveModel, item_id: str, note: str = "") -> Item:
    """Return an item as people see it; to be run by the engine's thread."""
    row = model.catalogue.row_of(item_id)
    if not row:
        return Item(item_id, item_id, note=note or "not in the catalogue, skipped")
    picture = str(model.catalogue.value(model.settings.service.image_column, row) or "")
    # The policy of the pages lets in what comes over https or from the service's own host.
    is_shown = picture.startswith("https://") or (picture.startswith("/") and not picture.startswith("//"))
    return Item(item_id, model.catalogue.titles[row] or item_id, picture if is_shown else "", note)


async def found_items(service: Service, state: State) -> list[Item]:
    """Return what the words of a search find, or what is popular."""
    model, now = service.engine.models[DEFAULT], time.time()
    if state.words:
        find = await service.call(lambda: model.finder(now))
        rows = await service.in_thread(find, state.words, MOST_FOUND)
    else:
        rows = await service.call(lambda: model.popular_rows(MOST_FOUND, now))
    return await service.call(lambda: [item_of(model, model.catalogue.ids[row]) for row in rows.tolist()])


def past_items(service: Service, model: LiveModel, state: State) -> list[Item]:
    """Return the newest of what a person did, the newest first; to be run by the engine's thread."""
    person, dataset = _person(service, state), model.dataset
    live = service.store.look([person])[1][person][-MOST_PAST:]
    past = [item_of(model, event.item_id, event.behavior) for event in reversed(live)]
    user = dataset.users.index_of(person)
    if user and not service.engine.is_forgotten(person):
        logged = dataset.item_index[int(dataset.user_offsets[user]) : int(dataset.user_offsets[user + 1])]
        past += [
            item_of(model, model.catalogue.ids[row], "from the log") for row in reversed(logged[-MOST_PAST:].tolist())
        ]
    return past[:MOST_PAST]


def context_fields(service: Service) -> list[ContextField]:
    """Return what the models read of the situation."""
    columns = {
        name: column for model in service.engine.models.values() for name, column in model.dataset.context.items()
    }
    fields = []
    for name, column in columns.items():
        words = column.vocabulary.ids if isinstance(column, CategoryColumn) else ()
        fields.append(
            ContextField(name, not isinstance(column, CategoryColumn), words if len(words) <= MOST_CHOICES else ())
        )
    return fields
