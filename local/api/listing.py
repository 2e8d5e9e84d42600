"""One page of a List operation: filters, order, and a token that survives inserted rows.

The token holds the sort position of the page's last row, not a count: rows that come or go between
two pages neither shift nor repeat the others (WIRE-10). It is good for the same filters and order.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from byoa.local.errors import ValidationException

if TYPE_CHECKING:
    from byoa.local.storage.state import Row

DEFAULT_PAGE = 10  # documented for endpoints and transform jobs; the other lists say nothing
_SORT_KEYS: dict[str, Callable[[Row], Any]] = {
    "Name": lambda row: row.name,
    "CreationTime": lambda row: row.created,
    "LastModifiedTime": lambda row: row.modified,
    "Status": lambda row: row.status,
}
_FILTERS: dict[str, Callable[[Row, Any], bool]] = {
    "NameContains": lambda row, text: text in row.name,
    "CreationTimeAfter": lambda row, moment: row.created > moment,
    "CreationTimeBefore": lambda row, moment: row.created < moment,
    "LastModifiedTimeAfter": lambda row, moment: row.modified > moment,
    "LastModifiedTimeBefore": lambda row, moment: row.modified < moment,
    "StatusEquals": lambda row, status: row.status == status,
}
_PAGING = ("SortBy", "SortOrder", "MaxResults", "NextToken")

__all__ = ["page"]


def page(
    rows: Iterable[Row],
    request: Mapping[str, Any],
    *,
    name_key: str,
    default_order: str,
    summary: Callable[[Row], dict[str, Any]],
    result_key: str,
) -> dict[str, Any]:
    """The page of `rows` that `request` asks for: `{result_key: [summary …], "NextToken"?: …}`.

    Each summary has the row's name as `name_key`. `default_order` is "Ascending" or "Descending"
    and differs per operation. Raises ValidationException for a filter that is not known here and
    for a token that this listing did not give.
    """
    _refuse_unknown(request)
    sort_by = request.get("SortBy", "CreationTime")
    order = request.get("SortOrder", default_order)
    matching = [
        row
        for row in rows
        if all(test(row, request[name]) for name, test in _FILTERS.items() if name in request)
    ]

    def position(row: Row) -> list[Any]:
        return [_SORT_KEYS[sort_by](row), row.name]  # the name makes the order total

    matching.sort(key=position, reverse=order == "Descending")
    query = _fingerprint(result_key, sort_by, order, request)
    if "NextToken" in request:
        last = _read_token(request["NextToken"], query)
        descending = order == "Descending"
        try:
            matching = [
                row
                for row in matching
                if (position(row) < last if descending else position(row) > last)
            ]
        except TypeError:
            raise _bad_token(request["NextToken"]) from None
    size = request.get("MaxResults", DEFAULT_PAGE)
    shown = matching[:size]
    answer: dict[str, Any] = {result_key: [{name_key: row.name, **summary(row)} for row in shown]}
    if len(matching) > size:  # the last page has no such key: clients loop while there is one
        answer["NextToken"] = _write_token(query, position(shown[-1]))
    return answer


def _refuse_unknown(request: Mapping[str, Any]) -> None:
    unknown = [name for name in request if name not in _FILTERS and name not in _PAGING]
    if unknown:
        raise ValidationException(
            f"Filtering by {', '.join(unknown)} is not supported here; "
            f"supported: {', '.join([*_FILTERS, *_PAGING])}"
        )
    if request.get("SortBy", "CreationTime") not in _SORT_KEYS:
        raise ValidationException(
            f"Sorting by {request['SortBy']} is not supported here; "
            f"supported: {', '.join(_SORT_KEYS)}"
        )


def _fingerprint(result_key: str, sort_by: str, order: str, request: Mapping[str, Any]) -> str:
    """What a listing's pages have in common; their size may differ."""
    filters = {name: request[name] for name in _FILTERS if name in request}
    text = json.dumps([result_key, sort_by, order, filters], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_token(query: str, position: Sequence[Any]) -> str:
    text = json.dumps([query, *position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode("ascii")


def _read_token(token: str, query: str) -> list[Any]:
    try:
        parts = json.loads(base64.b64decode(token.encode("ascii"), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise _bad_token(token) from None
    if not isinstance(parts, list) or len(parts) != 3 or parts[0] != query:
        raise _bad_token(token)
    return parts[1:]


def _bad_token(token: str) -> ValidationException:
    return ValidationException(f'Invalid pagination token because "{token[:100]}".')
