"""S3's XML, both ways: documents as nested pairs, request bodies without namespaces."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any
from xml.etree import ElementTree

from byoa.local.api.s3.errors import S3Error

__all__ = ["Tree", "document", "parse", "timestamp"]

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
XSI = "http://www.w3.org/2001/XMLSchema-instance"

_SPECIAL = re.compile('[&<>"\r\x00-\x08\x0b\x0c\x0e-\x1f]')
_NAMES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}

# An element: its name, then text, a number, or the elements within; None leaves it out.
Item = tuple[str, Any]


def document(name: str, items: Iterable[Item]) -> bytes:
    """An XML document of S3's namespace."""
    parts = ['<?xml version="1.0" encoding="UTF-8"?>\n']
    if name == "Error":  # the one document that has no namespace
        parts.append("<Error>")
    else:
        parts.append(f'<{name} xmlns="{NAMESPACE}">')
    _write(parts, items)
    parts.append(f"</{name}>")
    return "".join(parts).encode()


def _write(parts: list[str], items: Iterable[Item]) -> None:
    for name, value in items:
        if value is None:
            continue
        if isinstance(value, (list, tuple)):
            parts.append(f"<{name}>")
            _write(parts, value)
            parts.append(f"</{name.partition(' ')[0]}>")
        else:
            parts.append(f"<{name}>{escape(str(value))}</{name}>")


def escape(text: str) -> str:
    """Text for an element; control characters become references, as AWS writes them."""
    if _SPECIAL.search(text) is None:
        return text
    return _SPECIAL.sub(lambda found: _NAMES.get(found[0]) or f"&#x{ord(found[0]):x};", text)


def timestamp(seconds: float) -> str:
    """`2026-01-31T12:00:00.000Z`; whole seconds, so that it agrees with Last-Modified."""
    return _timestamp(int(seconds))


@functools.lru_cache(maxsize=4096)  # a listing's objects share their seconds
def _timestamp(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Tree:
    """A parsed element with its namespace forgotten."""

    def __init__(self, element: ElementTree.Element) -> None:
        self._element = element
        self.name = element.tag.rpartition("}")[2]

    def children(self, name: str) -> list[Tree]:
        """The elements within that have this name."""
        found = [Tree(child) for child in self._element]
        return [child for child in found if child.name == name]

    def text(self, name: str, default: str = "") -> str:
        """The text of the first element of this name."""
        for child in self.children(name):
            return child._element.text or ""
        return default

    def values(self) -> dict[str, str]:
        """Text by name of the elements within."""
        return {child.tag.rpartition("}")[2]: child.text or "" for child in self._element}


def parse(data: bytes, name: str) -> Tree:
    """The document, whose root must be `name`; MalformedXML otherwise."""
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise S3Error("MalformedXML")
    try:
        tree = Tree(ElementTree.fromstring(data))  # noqa: S314 no DOCTYPE, so no entities
    except ElementTree.ParseError:
        raise S3Error("MalformedXML") from None
    if tree.name != name:
        raise S3Error("MalformedXML")
    return tree
