"""Pages of List operations."""

from __future__ import annotations

import pytest

from byoa.local.api.listing import page
from byoa.local.errors import ValidationException
from byoa.local.settings import Caller
from byoa.local.storage.state import Row, State

CALLER = Caller("123456789012", "us-east-1")


def _row(name, created, *, status="InService", modified=None):
    values = {"kind": "endpoint", "name": name, "region": "us-east-1", "account": "123456789012",
              "arn": f"arn:{name}", "created": created, "modified": modified or created,
              "status": status, "document": {}}
    known = Row.__dataclass_fields__
    return Row(**{k: v for k, v in values.items() if k in known})


def _page(rows, **request):
    order = request.pop("default_order", "Descending")
    return page(rows, request, name_key="EndpointName", default_order=order,
                summary=lambda row: {"EndpointStatus": row.status}, result_key="Endpoints")


def _names(answer):
    return [item["EndpointName"] for item in answer["Endpoints"]]


ROWS = [_row(f"e-{index:02d}", 1000.0 + index) for index in range(25)]


def test_the_default_page_has_ten_rows_and_the_last_page_has_no_token():
    """WIRE-10."""
    seen, request = [], {}
    sizes = []
    while True:
        answer = _page(ROWS, **request)
        seen += _names(answer)
        sizes.append(len(answer["Endpoints"]))
        if "NextToken" not in answer:
            break
        request = {"NextToken": answer["NextToken"]}
    assert sizes == [10, 10, 5]
    assert seen == [f"e-{index:02d}" for index in reversed(range(25))]


def test_exactly_one_full_page_has_no_token():
    """WIRE-10."""
    assert "NextToken" not in _page(ROWS[:10])


@pytest.mark.parametrize("order", ["Ascending", "Descending"])
def test_the_default_order_is_the_operation_s(order):
    """CONTRA-32."""
    names = _names(_page(ROWS[:3], default_order=order))
    assert names == (["e-00", "e-01", "e-02"] if order == "Ascending"
                     else ["e-02", "e-01", "e-00"])


def test_rows_inserted_and_deleted_between_pages_neither_repeat_nor_hide_others():
    """WIRE-10."""
    first = _page(ROWS, MaxResults=5)
    assert _names(first)[-1] == "e-20"
    changed = [row for row in ROWS if row.name not in ("e-24", "e-20")]
    changed.append(_row("brand-new", 5000.0))
    second = _page(changed, MaxResults=5, NextToken=first["NextToken"])
    assert _names(second) == ["e-19", "e-18", "e-17", "e-16", "e-15"]


def test_rows_of_the_same_moment_are_told_apart_by_name():
    rows = [_row(name, 7.0) for name in "abcdef"]
    first = _page(rows, MaxResults=4, SortOrder="Ascending")
    second = _page(rows, MaxResults=4, SortOrder="Ascending", NextToken=first["NextToken"])
    assert _names(first) + _names(second) == list("abcdef")


@pytest.mark.parametrize(("filters", "expected"), [
    ({"NameContains": "-2"}, ["e-20", "e-21", "e-22", "e-23", "e-24"]),
    ({"CreationTimeAfter": 1022.0}, ["e-23", "e-24"]),
    ({"CreationTimeBefore": 1002.0}, ["e-00", "e-01"]),
    ({"CreationTimeAfter": 1003.0, "CreationTimeBefore": 1005.0}, ["e-04"]),
    ({"LastModifiedTimeAfter": 1023.5}, ["e-24"]),
    ({"LastModifiedTimeBefore": 1000.5}, ["e-00"]),
    ({"StatusEquals": "Failed"}, []),
])
def test_filters_are_combined(filters, expected):
    """WIRE-10."""
    assert _names(_page(ROWS, SortOrder="Ascending", MaxResults=100, **filters)) == expected


@pytest.mark.parametrize(("sort_by", "expected"), [
    ("Name", ["a", "b", "c"]), ("CreationTime", ["c", "b", "a"]), ("Status", ["b", "c", "a"]),
    ("LastModifiedTime", ["b", "a", "c"]),
])
def test_rows_are_sorted_by_what_is_asked(sort_by, expected):
    """WIRE-10."""
    rows = [_row("a", 30.0, status="Updating", modified=61.0),
            _row("b", 20.0, status="Creating", modified=60.0),
            _row("c", 10.0, status="Failed", modified=62.0)]
    assert _names(_page(rows, SortBy=sort_by, SortOrder="Ascending")) == expected


@pytest.mark.parametrize("token", ["nonsense", "bm9uc2Vuc2U=", "ü", "WzEsMl0=", ""])
def test_a_token_that_no_page_gave_is_refused(token):
    """WIRE-06, WIRE-10."""
    with pytest.raises(ValidationException, match="Invalid pagination token"):
        _page(ROWS, NextToken=token)


@pytest.mark.parametrize("other", [
    {"SortBy": "Name"}, {"SortOrder": "Ascending"}, {"NameContains": "e-1"}, {"NameContains": "e"},
    {"CreationTimeAfter": 1001.0}, {"StatusEquals": "Failed"}, {}])
def test_a_token_of_other_filters_or_another_order_is_refused(other):
    """WIRE-06, WIRE-10."""
    token = _page(ROWS, NameContains="e-", CreationTimeAfter=1000.0)["NextToken"]
    with pytest.raises(ValidationException, match='Invalid pagination token because "'):
        _page(ROWS, NextToken=token, **other)


def test_a_page_may_be_of_another_size_and_name_its_defaults():
    """WIRE-10."""
    token = _page(ROWS, NameContains="e-")["NextToken"]
    answer = _page(ROWS, NextToken=token, NameContains="e-", MaxResults=3,
                   SortBy="CreationTime", SortOrder="Descending")
    assert _names(answer) == ["e-14", "e-13", "e-12"]


def test_a_filter_that_is_not_applied_is_refused_by_name():
    with pytest.raises(ValidationException, match="TrainingPlanArnEquals.*NameContains"):
        _page(ROWS, TrainingPlanArnEquals="arn:x")


def test_rows_of_the_store_are_listed(tmp_path):
    state = State(tmp_path / "state.sqlite")
    state.create("endpoint", CALLER, "one", arn="arn:one", status="Creating", document={})
    answer = _page(state.list("endpoint", CALLER))
    state.close()
    assert answer == {"Endpoints": [{"EndpointName": "one", "EndpointStatus": "Creating"}]}
