"""The page ``/docs``: every address with what it takes, made from the OpenAPI document, without a script from anywhere.

Not for the document itself (FastAPI makes it) nor for the manual.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from jinja2 import Environment

from danlu.i18n import language, t

Schema = Mapping[str, Any]

_BOUNDS: Final = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "maxItems": "≤ {}",
    "maxLength": "≤ {}",
}
_HUGE: Final = 2**40  # a bound that is there because numbers end
_PAGE: Final = Environment(autoescape=True).from_string(
    """<!doctype html>
<html lang="{{ lang }}"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Danlu API</title><link rel="icon" href="/favicon.svg">
<style>
:root { color-scheme: light dark; --line: light-dark(#ddd9cf, #34383f); --soft: light-dark(#6b675e, #9aa0a8); }
body { font: 15px/1.6 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { font-size: 1rem; margin: 2.5rem 0 .25rem; border-top: 1px solid var(--line); padding-top: 1.25rem; }
code { font: 13px ui-monospace, monospace; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; margin-top: .5rem; }
th, td { text-align: start; vertical-align: top; padding: .25rem .75rem .25rem 0; border-top: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; font-size: 13px; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
@media (max-width: 40rem) { td, th { display: block; border: 0; padding: 0; } tr { display: block; padding: .4rem 0;
  border-top: 1px solid var(--line); } thead { display: none; } }
</style>
<h1>Danlu API</h1><p>{{ intro }} <a href="/openapi.json">/openapi.json</a></p>
{% for route in routes %}<h2 id="{{ route.anchor }}"><code>{{ route.method }} {{ route.path }}</code></h2>
<p>{% for text, is_code in route.description %}{% if is_code %}<code>{{ text }}</code>{% else %}{{ text }}{% endif %}
{%- endfor %}</p>
{% if route.fields %}<table><thead><tr><th>{{ words.field }}<th>{{ words.kind }}<th>{{ words.meaning }}</thead>
{% for field in route.fields %}<tr><td><code>{{ field.name }}</code>{% if field.required %} *{% endif %}
<td class="soft"><code>{{ field.kind }}</code><td>{{ field.meaning }}
{% endfor %}</table>{% endif %}
{% endfor %}<h2><code>WS /ws/answers</code></h2><p>{{ words.socket }}</p>
<p class="soft">* {{ words.required }}</p>
</html>"""
)


@dataclass(frozen=True)
class Field:
    """A field of a body, or a parameter of an address."""

    name: str
    kind: str
    required: bool
    meaning: str


@dataclass(frozen=True)
class Route:
    """An address; the description is in pieces, each with whether it is code."""

    method: str
    path: str
    description: tuple[tuple[str, bool], ...]
    fields: tuple[Field, ...]

    @property
    def anchor(self) -> str:
        """A name to link to."""
        return f"{self.method.lower()}{self.path.replace('/', '-')}"


def api_page(document: Mapping[str, Any]) -> str:
    """Return the page for an OpenAPI document, in the language in force."""
    schemas = document.get("components", {}).get("schemas", {})
    words = {name: t(f"server.docs.{name}") for name in ("field", "kind", "meaning", "required", "socket")}
    return _PAGE.render(
        lang=language(), intro=t("server.docs.intro"), words=words, routes=list(_routes(document, schemas))
    )


def _routes(document: Mapping[str, Any], schemas: Mapping[str, Schema]) -> Iterator[Route]:
    for path, methods in document["paths"].items():
        for method, route in methods.items():
            fields = [_parameter(item, schemas) for item in route.get("parameters", ())]
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            body = _resolved(body, schemas)
            needed = set(body.get("required", ()))
            fields += [
                Field(name, _kind(field, schemas), name in needed, _meaning(field))
                for name, field in body.get("properties", {}).items()
            ]
            pieces = re.split("``", str(route.get("description", "")))
            description = tuple((text, bool(i % 2)) for i, text in enumerate(pieces))
            yield Route(method.upper(), path, description, tuple(fields))


def _parameter(item: Schema, schemas: Mapping[str, Schema]) -> Field:
    schema = item.get("schema", {})
    return Field(item["name"], _kind(schema, schemas), bool(item.get("required")), _meaning({**schema, **item}))


def _resolved(schema: Schema, schemas: Mapping[str, Schema]) -> Schema:
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    return schemas.get(name, {}) if name else schema


def _kind(schema: Schema, schemas: Mapping[str, Schema]) -> str:
    """Return what a field holds, in a few words: a type, the values allowed, the fields of an object."""
    if "$ref" in schema:
        found = _resolved(schema, schemas)
        inner = found.get("properties")
        return "{" + ", ".join(inner) + "}" if inner else _kind(found, schemas)
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " | ".join(f'"{value}"' for value in schema["enum"])
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        kinds = dict.fromkeys(_kind(one, schemas) for one in choices if one.get("type") != "null")
        return " | ".join(kinds)
    if schema.get("type") == "array":
        return f"[{_kind(schema.get('items', {}), schemas)}]"
    return str(schema.get("type", "any"))


def _meaning(schema: Schema) -> str:
    parts = [str(schema["description"])] if schema.get("description") else []
    for one in (schema, *schema.get("anyOf", ())):
        parts += [form.format(f"{one[key]:g}") for key, form in _BOUNDS.items() if key in one and abs(one[key]) < _HUGE]
    default = schema.get("default")
    if default not in (None, [], ""):
        parts.append(f"{t('server.docs.default')} {json.dumps(default)}")
    return "; ".join(parts)
