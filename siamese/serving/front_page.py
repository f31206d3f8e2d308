"""The service's pages: two pictures or one, who is known, and a list of the API; no other file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from siamese.drawing.page import rendered

_METHODS = ("get", "post", "put", "delete")


@dataclass(frozen=True)
class Words:
    """What stands at the top of a page."""

    title: str
    subtitle: str
    summary: tuple[str, ...] = ()


@dataclass(frozen=True)
class Operation:
    """An address and what it does.

    Attributes:
        parameters: name and meaning of what stands in the address.
        parts: the same of the parts of its form.
        answers: status and meaning of each.
    """

    method: str
    path: str
    summary: str
    parameters: tuple[tuple[str, str], ...]
    parts: tuple[tuple[str, str], ...]
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DocsPage(Words):
    """The API as a list.

    Attributes:
        token: whether every request needs one.
    """

    token: bool = False
    operations: tuple[Operation, ...] = ()


def front_page() -> str:
    """The page for people, as HTML."""
    words = Words(
        "Same person? Who is this?",
        "Pictures are looked at and not kept. Enrolling stores a few hundred numbers of each, its "
        "name and its checksum; removing a person removes them all.",
    )
    return rendered(words, "serve.html", "siamese.serving")


def docs_page(schema: dict[str, Any]) -> str:
    """The page for programmers, as HTML, from the service's own OpenAPI description."""
    page = DocsPage(
        "The service's addresses",
        "The same for programs, in OpenAPI's form: /openapi.json",
        token="security" in schema,
        operations=tuple(_operations(schema)),
    )
    return rendered(page, "docs.html", "siamese.serving")


def _operations(schema: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in schema["paths"].items():
        for method in _METHODS:
            if method not in methods:
                continue
            one = methods[method]
            form = one.get("requestBody", {}).get("content", {}).get("multipart/form-data", {})
            yield Operation(
                method.upper(),
                path,
                one["description"],
                tuple((p["name"], _meaning(p)) for p in one.get("parameters", [])),
                tuple(
                    (name, _files(part))
                    for name, part in form.get("schema", {}).get("properties", {}).items()
                ),
                tuple(
                    (status, answer["description"])
                    for status, answer in sorted(one["responses"].items())
                ),
            )


def _meaning(parameter: dict[str, Any]) -> str:
    default = parameter["schema"].get("default")
    told = str(parameter.get("description", "in the address, percent-encoded"))
    return told if default is None else f"{told}; {str(default).lower()} without"


def _files(part: dict[str, Any]) -> str:
    return f"1 to {part['maxItems']} pictures" if part["type"] == "array" else "a picture"
