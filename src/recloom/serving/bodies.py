"""The JSON that goes in and out, with examples; the interface's own page at /docs is made from it."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from recloom.events.timestamps import ACCEPTED, read_seconds
from recloom.explanation import Kind, Language

PRINTABLE = r"^[^\x00-\x1f\x7f]+$"
Id = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=PRINTABLE)]
LARGEST = 1e300
"""Largest number that is taken: larger ones overflow sooner or later."""


def is_scalar(value: Any) -> bool:
    """Whether something is a text that can be written down, a number that can be reckoned with, or yes or no."""
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value)
    return isinstance(value, int | float) and abs(value) <= LARGEST


def _scalar(value: Any) -> Any:
    if not is_scalar(value):
        raise ValueError("wanted a text, a number or a boolean")
    return value


Scalar = Annotated[str | int | float | bool, AfterValidator(_scalar)]


def _time(value: Any) -> Any:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        seconds = value if value is None or abs(value) < 10**11 else value // 1000
        if seconds is not None and abs(seconds) >= 10**11:
            raise ValueError(f"{str(value)[:20]} is too large for a time; wanted {ACCEPTED}")
    else:
        seconds = read_seconds(value) if isinstance(value, str | float) else None
        if seconds is None:
            raise ValueError(f"{value!r} is no time; wanted {ACCEPTED}")
    return seconds


Time = Annotated[int, BeforeValidator(_time), Field(description=ACCEPTED, json_schema_extra={"examples": [1767225600]})]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class EventIn(BaseModel):
    """One thing that somebody did; any further field is context, as in the log the model was fitted on."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [{"event_id": "e-1", "user_id": "1", "item_id": "1001", "behavior": "view", "device": "mobile"}]
        },
    )

    event_id: Id | None = Field(None, description="The same id again counts once; one is made up where there is none")
    user_id: Id | None = Field(None, description="Who it was")
    session_id: Id | None = Field(
        None, description="In place of user_id: somebody unknown, for as long as a session lasts"
    )
    item_id: Id
    timestamp: Time | None = Field(None, description="When; now where nothing is said")
    behavior: Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=PRINTABLE)] = "interaction"
    recommendation_id: Id | None = Field(None, description="The list it came from, as the service numbered it")
    value: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="What it was worth, as a price"
    )


class EventsIn(_Body):
    """Events to keep."""

    events: list[dict[str, Any]] = Field(
        description="Each as `EventIn`; a bad one is rejected by itself",
        json_schema_extra={
            "items": {"$ref": "#/components/schemas/EventIn"},
            "examples": [[{"event_id": "e-1", "user_id": "1", "item_id": "1001", "behavior": "view"}]],
        },
    )


class Rejected(BaseModel):
    """An event that was not kept."""

    index: int
    detail: str


class EventsOut(BaseModel):
    """Events that are on disk now, those that were there before included, and those that could not be kept."""

    accepted: int
    rejected: list[Rejected]


class PastEvent(BaseModel):
    """One interaction of a history that comes with the request; any further field is context."""

    model_config = ConfigDict(extra="allow")

    item_id: Id
    timestamp: Time | None = None
    behavior: Annotated[str, StringConstraints(max_length=64)] = ""


class RecommendationsIn(_Body):
    """Who wants to know what comes next: a user, a session, or any history at all."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"user_id": "1", "k": 5},
                {"history": ["1001", "1002"], "k": 5, "filters": {"where": {"category": {"in": ["book"]}}}},
            ]
        },
    )

    user_id: Id | None = None
    session_id: Id | None = None
    history: list[Id | PastEvent] | None = Field(None, description="Oldest first; unknown items are skipped")
    k: int = Field(10, ge=1)
    context: dict[Annotated[str, StringConstraints(max_length=64)], Scalar] = Field(
        default_factory=dict,
        description="The situation, by column of the log; `timestamp` is now where nothing is said",
    )
    include_seen: bool | None = Field(None, description="Unset: as measured on the data")
    filters: dict[str, Any] = Field(
        default_factory=dict,
        description="allow, deny, where, max_per, diversity, pinned, boosts; added to the rules of the service",
    )
    explain: bool = Field(False, description="Whether every item says why it is there")
    language: Language = Field("en", description="Of the sentences that say why")
    phrase: bool = Field(
        False, description="Whether a language model phrases them, if the service has one and it is there in time"
    )
    model: Id | None = Field(None, description="Ask this model of the service; nothing is logged then")


class ReasonOut(BaseModel):
    """One thing that an item's score comes from."""

    kind: Kind = Field(
        description="history: a past interaction; id, text, popularity and any item: what the model's score is the sum"
        " of; context: a part of the request; rules: a boost or a pin; popular: the popular list answered; new: placed"
        " by its text"
    )
    contribution: float | None = Field(
        description="How much lower the score would be without it; null for the only interaction, and where it is no"
        " number"
    )
    item_id: str | None = Field(None, description="Of the interaction")
    title: str | None = None
    behavior: str | None = None
    name: str | None = Field(None, description="Column of the context; boost or pinned")


class ItemOut(BaseModel):
    """One place of a list."""

    rank: int
    item_id: str
    score: float | None = Field(description="null for a pinned item")
    title: str
    because: str | None = Field(None, description="The reasons in a sentence")
    reasons: list[ReasonOut] | None = None


class RecommendationsOut(BaseModel):
    """A list, and where it came from."""

    recommendation_id: str = Field(description="Send it back with the events that follow")
    model: str = Field(description="Name and version of the model, as in default@3f2a")
    variant: str | None = Field(description="The variant of the running experiment")
    served_by: str = Field(description="The model's kind, or the fallback that answered: content or popular-recent")
    unknown_items: int
    items: list[ItemOut]


class SimilarOut(BaseModel):
    """The items nearest to one."""

    model: str
    items: list[ItemOut]


class ItemState(BaseModel):
    """What became of an item."""

    item_id: str
    status: Literal["accepted", "withdrawn"]
    detail: str | None = Field(None, description="Why a new item will not be recommended, where it will not")


class UserDeleted(BaseModel):
    """What was removed of a person."""

    events: int
    recommendations: int


class ModelIn(_Body):
    """A model folder to serve under a name, or the same one anew."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"name": "wide", "path": "/var/lib/recloom/wide"}]}
    )

    name: Id
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class ModelFacts(BaseModel):
    """A model in service."""

    name: str
    model: str = Field(description="Its kind, such as weave")
    version: str
    items: int
    room: int = Field(description="New items that fit before it is laid out anew")
    loaded: int = Field(description="UTC seconds")
    fitted_on: str = Field(description="Fingerprint of its dataset")
    validation_ndcg_at_10: float | None
    search: Literal["exact", "approximate"]
    index_recall: float | None = Field(description="Measured when the index was built; null where search is exact")


class ModelProblem(BaseModel):
    """Why a model is not in service, or not in the version it should be."""

    name: str
    detail: str


class ModelsOut(BaseModel):
    """The models of the service."""

    models: list[ModelFacts]
    problems: list[ModelProblem]


class ModelState(BaseModel):
    """What becomes of a model."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "wide", "version": "3f2a0c9d1b7e", "status": "loading"},
                {"name": "wide", "status": "removed"},
            ]
        }
    )

    name: str
    version: str | None = Field(None, description="The version that is being loaded")
    status: Literal["loading", "removed"]


class ExperimentsOut(BaseModel):
    """What came of every experiment: variants with ctr, conversion and revenue, their intervals and differences."""

    experiments: list[dict[str, Any]]


class ExperimentState(BaseModel):
    """What became of an experiment."""

    name: str
    status: Literal["running", "stopped"]
    promoted: str | None = None


class Promotion(_Body):
    """Which variant's model everybody gets from now on."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"variant": "diverse"}]})

    variant: Id


class Problem(BaseModel):
    """What was wrong, as RFC 9457 spells it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
