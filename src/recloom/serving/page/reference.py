"""The OpenAPI document -> what the page about the interface says of each route."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Field:
    """A parameter, or a field of a body."""

    name: str
    type: str
    link: str
    """The schema it holds, by name."""
    is_required: bool
    description: str


@dataclass(frozen=True)
class Route:
    """One way of asking the service."""

    id: str
    method: str
    path: str
    summary: str
    description: str
    tag: str
    parameters: list[Field]
    body: str
    """The name of the body's schema; "" where it has none."""
    fields: list[Field]
    example: str
    responses: list[tuple[str, str, str]]
    """Status, description, and the name of the schema."""


@dataclass(frozen=True)
class Reference:
    """All that there is to say about the interface."""

    routes: list[Route]
    schemas: list[tuple[str, str, list[Field]]]
    """Name, description and fields."""


def reference(openapi: Mapping[str, Any], base: str, *, needs_keys: bool) -> Reference:
    """Read an OpenAPI document.

    Args:
        openapi: What `FastAPI.openapi` returns.
        base: Address of the service, for the examples.
        needs_keys: Whether the examples send a key.
    """
    schemas = openapi["components"]["schemas"]
    routes = [
        _route(path, method, operation, schemas, base, needs_keys)
        for path, operations in openapi["paths"].items()
        for method, operation in operations.items()
    ]
    listed = [(name, schema.get("description", ""), fields(schema)) for name, schema in sorted(schemas.items())]
    return Reference(routes, listed)


def _route(
    path: str, method: str, operation: Schema, schemas: Mapping[str, Schema], base: str, needs_keys: bool
) -> Route:
    parameters = [
        Field(entry["name"], f"{_type(entry['schema'])}, in the {entry['in']}", "", entry.get("required", False),
              entry.get("description", ""))
        for entry in operation.get("parameters", ())
    ]  # fmt: skip
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    sample = example(body, schemas) if body else None
    return Route(
        operation["operationId"],
        method.upper(),
        path,
        operation.get("summary", ""),
        operation.get("description", ""),
        next(iter(operation.get("tags", ())), "others"),
        parameters,
        _name(body or {}),
        fields(_resolved(body, schemas)) if body else [],
        _curl(method, path, base, sample, needs_keys=needs_keys),
        [_response(code, answer) for code, answer in sorted(operation["responses"].items())],
    )


def _response(code: str, answer: Mapping[str, Any]) -> tuple[str, str, str]:
    content: Schema = next((value for value in answer.get("content", {}).values() if "schema" in value), {})
    return code, answer.get("description", ""), _name(content.get("schema", {}))


def fields(schema: Schema) -> list[Field]:
    """Return the fields of an object, the required ones first."""
    required = schema.get("required", ())
    listed = [
        Field(name, _type(value), _name(value), name in required, _with_default(value))
        for name, value in schema.get("properties", {}).items()
    ]
    return sorted(listed, key=lambda entry: not entry.is_required)


def _with_default(schema: Schema) -> str:
    default = schema.get("default")
    usual = f"`{json.dumps(default)}` where nothing is said" if default not in (None, "", [], {}) else ""
    return "; ".join(part for part in (schema.get("description", ""), usual) if part)


def _type(schema: Schema) -> str:
    """Return a type in a word or three: `list of text`."""
    if "$ref" in schema:
        return _name(schema)
    if "anyOf" in schema:
        kinds = [_type(option) for option in schema["anyOf"] if option.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema["enum"])
    if "const" in schema:
        return json.dumps(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    kind = str(schema.get("type", "anything"))
    return words.get(kind, kind)


def _name(schema: Schema) -> str:
    """Return the schema that this one refers to, itself or in what it holds; "" for none."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    inner = [*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])]
    return next((name for name in map(_name, inner) if name), "")


def _resolved(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    return schemas[_name(schema)] if "$ref" in schema else schema


def example(schema: Schema, schemas: Mapping[str, Schema], name: str = "text") -> Any:
    """Return something that a schema describes: its own example, else its required fields, a text as `NAME`."""
    schema = _resolved(schema, schemas)
    if "examples" in schema:
        return schema["examples"][0]
    if "anyOf" in schema:
        return example(schema["anyOf"][0], schemas, name)
    if schema.get("type") == "array":
        return [example(schema.get("items", {}), schemas, name)]
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        return {field: example(properties[field], schemas, field) for field in schema.get("required", ())}
    return {"integer": 1, "number": 1.0, "boolean": True}.get(schema.get("type", ""), name.upper())


def _curl(method: str, path: str, base: str, body: Any, *, needs_keys: bool) -> str:
    address = base.rstrip("/") + path.replace("{item_id}", "1001").replace("{user_id}", "1").replace("{name}", "autumn")
    lines = [f"curl {'' if method == 'get' else f'-X {method.upper()} '}{shlex.quote(address)}"]
    if needs_keys:
        lines.append("-H 'Authorization: Bearer KEY'")
    if body is not None:
        lines += ["-H 'Content-Type: application/json'", f"-d {shlex.quote(json.dumps(body, ensure_ascii=False))}"]
    return " \\\n  ".join(lines)
