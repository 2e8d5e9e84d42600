"""Filter patterns of CloudWatch Logs."""

from __future__ import annotations

import pytest

from byoa.local.aws.log_patterns import compile_pattern
from byoa.local.errors import AwsError

LINES = ["all well", "ERROR: no such file", "WARN slow: 199999 ms", "ERROR and WARN", 'says "hi"']


@pytest.mark.parametrize(("pattern", "expected"), [
    ("", [0, 1, 2, 3, 4]), (" ", [0, 1, 2, 3, 4]),
    ("ERROR", [1, 3]), ("error", []), ("199999", [2]), ("ERROR WARN", [3]), ("WARN ERROR", [3]),
    ('"no such file"', [1]), ('"slow: 1" WARN', [2]), ('"ERROR:"', [1]), (r'"\"hi\""', [4]),
    ("ERROR -WARN", [1]), ('-ERROR -"all well"', [2, 4]), ("?ERROR ?well", [0, 1, 3]),
    ('?"ERROR:" ?199999', [1, 2]),
])
def test_a_pattern_matches_lines_by_their_terms(pattern, expected):
    matches = compile_pattern(pattern)
    assert [index for index, line in enumerate(LINES) if matches(line)] == expected


@pytest.mark.parametrize(("pattern", "why"), [
    ('{ $.level = "ERROR" }', "JSON patterns are not supported"),
    ("[ip, user, code=4*]", "column patterns are not supported"),
    ("%ERR.R%", "regular expressions are not supported"),
    ("ERROR: now", r"Invalid character\(s\) in term 'ERROR:': put it in double quotes"),
    ("a -[b]", r"Invalid character\(s\) in term '\[b\]'"),
    ('"open', "does not end"), ('"a"b', "not followed by a space"), ('""', "phrase is empty"),
    ("-", "Invalid character"), ("ERROR ?WARN", "do not combine"), ("?a -b", "do not combine"),
])
def test_a_pattern_of_another_kind_is_refused_with_what_is_supported(pattern, why):
    with pytest.raises(AwsError, match=why) as caught:
        compile_pattern(pattern)
    assert caught.value.code == "InvalidParameterException"
    assert 'phrases in "double quotes"' in caught.value.message
