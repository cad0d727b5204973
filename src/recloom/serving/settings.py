"""Files, environment and options -> the settings of a service."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from recloom.config import Tables, build, parse_settings, read_run_file, suggestion
from recloom.errors import ConfigError
from recloom.events import Pseudonyms
from recloom.retrieval import Availability, Rules
from recloom.serving.experiments import Experiment

T = TypeVar("T")
ENVIRONMENT_PREFIX = "RECLOOM_"
TABLES = ("service", "availability", "rules", "behaviors")


@dataclass(frozen=True, kw_only=True)
class ServiceConfig:
    """Limits and habits of a service: the [service] table of its settings."""

    max_body_bytes: int = 1_000_000
    """Largest request body that is read."""
    max_k: int = 500
    """Longest list that may be asked for."""
    max_history: int = 1_000
    """Most interactions of a history given with a request."""
    max_events: int = 1_000
    """Most events in one request."""
    max_rule_items: int = 10_000
    """Most items and values that a request's filters may name."""
    max_boosts: int = 20
    """Most boosts of a request."""
    queue: int = 256
    """Recommendations that may wait; further ones are told to come back (503)."""
    event_queue: int = 20_000
    """Events and exposures that may wait to be written; further ones are told to come back (503)."""
    timeout: float = 5.0
    """Seconds after which a request is given up (503)."""
    batch: int = 32
    """Recommendations computed together, where so many wait."""
    threads: int = 1
    """Threads of one computation."""
    rate_limit: float = 0.0
    """Requests a second that one key may make, or one address where there are no keys; 0 for any number."""
    approximate_from: int = 50_000
    """Items from which on an approximate index is used, if the extra `ann` is installed; fewer are searched exactly."""
    approximate_recall: float = 0.99
    """Share of the ten best items that the approximate index has to find."""
    room: int = 1_000
    """Items that can come at run time before the model is laid out anew, which happens in the background."""
    retention_days: float = 0.0
    """Days after which events and recommendations are removed; 0 to keep them."""
    attribution_hours: float = 24.0
    """How long after a recommendation what people do counts for it."""
    popular_days: float = 7.0
    """Days of events that the popular list, the last resort, is made of."""
    conversions: list[str] = field(default_factory=lambda: ["purchase"])
    """Behaviours that count as conversions; every other one that is attributed counts as a click."""
    cors_origins: list[str] = field(default_factory=list)
    """Web origins whose pages may call the service from a browser."""
    hosts: list[str] = field(default_factory=lambda: ["localhost"])
    """Names under which a service without keys may be called, beside the addresses of machines."""
    pseudonym_key: str = ""
    """File of the key that the model's user ids are pseudonyms of; then nothing else is stored of anybody."""
    image_column: str = "image"
    """Column of the catalogue with a picture's address, for the page."""
    writer: str = ""
    """Language model that phrases reasons for requests that want it: smollm2, openai:MODEL or a folder. Unset: none."""
    writer_seconds: float = 2.0
    """The most that it may take for a whole list; what is not phrased by then keeps the template's sentence."""
    pictures: str = ""
    """Folder of the pictures that the `image` of an item put at run time may name, for the model to look at. Unset: it
    looks at none, and `image` is an address for the page."""

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_k", "max_history", "max_events", "queue", "event_queue", "batch",
                     "threads", "timeout", "attribution_hours", "popular_days", "writer_seconds"):  # fmt: skip
            if getattr(self, name) <= 0:
                raise ConfigError(f"service.{name} is {getattr(self, name)}; it has to be positive")
        for name in ("rate_limit", "retention_days", "room"):
            if getattr(self, name) < 0:
                raise ConfigError(f"service.{name} is {getattr(self, name)}; it cannot be negative")
        if self.writer and self.writer_seconds >= self.timeout:
            raise ConfigError(
                f"service.writer_seconds is {self.writer_seconds}; it has to be less than service.timeout,"
                f" {self.timeout}"
            )
        if not 0 < self.approximate_recall <= 1:
            raise ConfigError(f"service.approximate_recall is {self.approximate_recall}; it has to lie in (0, 1]")


@dataclass(frozen=True)
class Settings:
    """Everything a service can be told."""

    service: ServiceConfig = field(default_factory=ServiceConfig)
    availability: Availability = field(default_factory=Availability)
    rules: Rules = field(default_factory=Rules)
    """What every list obeys, whoever asks: the [rules] table."""
    behaviors: Mapping[str, float] = field(default_factory=dict)
    """What a behaviour counts for in popularity, 1 where nothing is said. One of 0 is kept but not read by the model; a
    negative one also keeps the item out of that person's lists."""

    @cached_property
    def pseudonyms(self) -> Pseudonyms | None:
        """What users and sessions are known by, where there is a key."""
        key = self.service.pseudonym_key
        return Pseudonyms.from_file(Path(key)) if key else None


def read_settings(config: Path | None = None, options: list[str] | None = None) -> Settings:
    """Read settings: options before the environment (`RECLOOM_SERVICE_MAX_K=100`) before the file.

    Raises:
        ConfigError: A setting is unknown or has a value it cannot have.
    """
    tables: Tables = read_run_file(config) if config else {}
    for more in (parse_settings(_from_environment()), parse_settings(options or [])):
        for table, values in more.items():
            tables[table] = {**tables.get(table, {}), **values}
    for table in tables:
        if table not in TABLES:
            raise ConfigError(f"unknown table [{table}] in the settings of a service; {suggestion(table, TABLES)}")
    return Settings(
        build(ServiceConfig, "service", tables.get("service", {}), {}),
        build(Availability, "availability", tables.get("availability", {}), {}),
        read_rules(tables.get("rules", {})),
        {name: float(value) for name, value in tables.get("behaviors", {}).items()},
    )


def read_rules(table: Mapping[str, Any]) -> Rules:
    """Read rules as a table of a file or the body of a request spells them.

    Raises:
        ConfigError: They are not what `Rules` wants.
    """
    if unknown := set(table) - set(Rules.__dataclass_fields__):
        name = min(unknown)
        raise ConfigError(f"unknown rule {name!r}; {suggestion(name, list(Rules.__dataclass_fields__))}")
    return _validated(_RULES, table, "rules")


def read_experiment(definition: Mapping[str, Any]) -> Experiment:
    """Read an experiment as the body of a request spells it.

    Raises:
        ConfigError: It is not what `Experiment` wants.
    """
    return _validated(_EXPERIMENT, definition, "experiment")


def _validated(adapter: TypeAdapter[T], table: Mapping[str, Any], what: str) -> T:
    try:
        return adapter.validate_python(dict(table))
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):
            raise cause from None
        raise ConfigError(f"{what}.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


_RULES = TypeAdapter(Rules)
_EXPERIMENT = TypeAdapter(Experiment)


def _from_environment() -> list[str]:
    found = []
    for name, value in os.environ.items():
        for table in TABLES:
            prefix = f"{ENVIRONMENT_PREFIX}{table.upper()}_"
            if name.startswith(prefix):
                found.append(f"{table}.{name.removeprefix(prefix).lower()}={value}")
    return found
