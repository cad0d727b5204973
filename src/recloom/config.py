"""Run files and `--set` options -> the config classes that sit beside the code they configure."""

import dataclasses
import difflib
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from recloom.errors import ConfigError

C = TypeVar("C")
Tables = dict[str, dict[str, Any]]


def read_run_file(path: Path) -> Tables:
    """Read the tables of a TOML run file: [model], [training], [split], [encoder].

    Raises:
        ConfigError: There is no such file, or it is not TOML.
    """
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"the run file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the run file {path} is not TOML in UTF-8: {error}") from None


def parse_settings(settings: Sequence[str]) -> Tables:
    """Turn `["training.epochs=20"]` into `{"training": {"epochs": 20}}`.

    A value is read as TOML where it is TOML, and as text otherwise, so that nothing needs quoting twice.
    """
    tables: Tables = {}
    for setting in settings:
        option, equals, value = setting.partition("=")
        table, dot, name = option.strip().partition(".")
        if not (equals and dot and name):
            raise ConfigError(f"--set {setting!r} is not of the form table.option=value, as in training.epochs=20")
        try:
            parsed = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value.strip()
        tables.setdefault(table, {})[name] = parsed
    return tables


def build(config_class: type[C], table: str, values: Mapping[str, Any], defaults: Mapping[str, Any]) -> C:
    """Make a config from a table of a run file.

    Args:
        config_class: A dataclass whose fields are the options.
        table: The table's name, for messages.
        values: What the user set.
        defaults: What holds where the user set nothing and the class's own default does not suit the data.

    Raises:
        ConfigError: An option nobody knows (the message suggests the nearest), or a value of the wrong type.
    """
    types_by_name = typing.get_type_hints(config_class)
    for name, value in values.items():
        if name not in types_by_name:
            raise ConfigError(f"unknown option {table}.{name}; {suggestion(name, list(types_by_name))}")
        if not _fits(value, types_by_name[name]):
            raise ConfigError(f"{table}.{name} is {value!r}; it has to be {_spelled(types_by_name[name])}")
    return config_class(**{**defaults, **values})


def suggestion(name: str, known: Sequence[str]) -> str:
    """Say which of the known names was probably meant, or list them all."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}?" if nearest else f"there are: {', '.join(known) or 'none'}"


def to_table(config: Any) -> dict[str, Any]:
    """Return a config as a table that TOML can hold: an option that is unset is left out."""
    return {name: value for name, value in dataclasses.asdict(config).items() if value is not None}


def _fits(value: Any, wanted: Any) -> bool:
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return any(_fits(value, one) for one in typing.get_args(wanted))
    if typing.get_origin(wanted) is typing.Literal:
        return isinstance(value, str)  # the class itself says which words it knows
    if typing.get_origin(wanted) is list:
        return isinstance(value, list) and all(_fits(one, typing.get_args(wanted)[0]) for one in value)
    if wanted is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, wanted)


def _spelled(wanted: Any) -> str:
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", type(None): "unset"}
    if typing.get_origin(wanted) in (typing.Union, types.UnionType):
        return " or ".join(_spelled(one) for one in typing.get_args(wanted) if one is not type(None))
    if typing.get_origin(wanted) is list:
        return f"a list, each entry {_spelled(typing.get_args(wanted)[0])}"
    if typing.get_origin(wanted) is typing.Literal:
        return " or ".join(map(str, typing.get_args(wanted)))
    return names.get(wanted, str(wanted))
