"""Errors as data, and the failure file's text: cause first, 1,024 characters (TRAIN-141, TRAP-23).

The author's code of these tests is written to files, so that frames and lines are real.
"""

import importlib.util
import sys
import textwrap

import pytest

from byoa.container.contract import failure_reason
from byoa.container.errors import (
    FAILURE_LIMIT_CHARACTERS,
    AlgorithmError,
    ByoaError,
    DataError,
    HyperparameterError,
    failure_report,
    text_of,
    user_frame,
)


@pytest.fixture
def failing(tmp_path):
    """Run an author's source; the exception that came out of it."""

    def run(source, name="train.py", encoding="utf-8"):
        path = tmp_path / name
        path.write_bytes(textwrap.dedent(source).encode(encoding))
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except BaseException as error:
            return error
        raise AssertionError("the source did not fail")

    return run


def test_the_cause_and_the_author_s_line_come_first(failing):
    """TRAP-23"""
    report = failure_report(failing("""
        def fit(x):
            raise ValueError("expected 3 columns, found 4")

        fit(1)
    """))
    first = report.splitlines()[0]
    assert first == (
        "ValueError: expected 3 columns, found 4 at train.py:3 in fit:"
        ' raise ValueError("expected 3 columns, found 4")'
    )
    assert "Traceback (end):" in report
    assert "line 5, in <module>" in report


def test_the_line_is_the_author_s_and_not_the_library_s(failing):
    error = failing("""
        import json

        json.loads("{")
    """)
    assert user_frame(error).lineno == 4
    assert failure_report(error).startswith("JSONDecodeError: Expecting property name")
    assert 'at train.py:4 in <module>: json.loads("{")' in failure_report(error)


@pytest.mark.parametrize("length", [700, 1024, 100_000])
def test_a_huge_message_leaves_room_for_the_place(failing, length):
    report = failure_report(failing(f"raise RuntimeError('start ' + 'x' * {length})"))
    assert report.startswith("RuntimeError: start xxx")
    assert "x … at train.py:1 in <module>" in report
    assert len(report) <= FAILURE_LIMIT_CHARACTERS


def test_an_exception_without_message_is_named(failing):
    report = failure_report(failing("assert 1 > 2"))
    assert report.splitlines()[0] == "AssertionError at train.py:1 in <module>: assert 1 > 2"


def test_an_exception_that_was_never_raised_has_no_place():
    assert failure_report(ValueError("x")) == "ValueError: x"


def test_the_chain_of_causes_follows_the_headline(failing):
    report = failure_report(failing("""
        try:
            {}["rate"]
        except KeyError as error:
            raise RuntimeError("training failed") from error
    """))
    assert report.splitlines()[:2] == [
        "RuntimeError: training failed at train.py:5 in <module>:"
        ' raise RuntimeError("training failed") from error',
        """caused by KeyError: 'rate' at train.py:3 in <module>: {}["rate"]""",
    ]


def test_a_suppressed_context_is_not_shown(failing):
    report = failure_report(failing("""
        try:
            1 / 0
        except ZeroDivisionError:
            raise RuntimeError("y") from None
    """))
    assert "caused by" not in report


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert failure_report(first) == "ValueError: a\ncaused by ValueError: b"


def test_an_error_of_syntax_names_its_file_and_line(failing):
    report = failure_report(failing("x = 1\nif x\n    pass\n"))
    assert report.startswith("SyntaxError: expected ':' at train.py:2: if x")


def test_an_error_of_syntax_in_an_imported_module_names_that_module(failing, tmp_path, monkeypatch):
    (tmp_path / "layers_of_mine.py").write_text("def f(:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    report = failure_report(failing("import layers_of_mine\n"))
    assert report.startswith("SyntaxError: invalid syntax at layers_of_mine.py:1: def f(:")
    assert report.endswith("line 1, in <module>\n    import layers_of_mine")  # the author's own


def test_a_report_has_no_frames_of_importlib_and_of_byoa(failing, tmp_path, monkeypatch):
    """TRAIN-141: what is left out of 1,024 characters is what tells the author nothing."""
    from byoa.algorithms import registry

    (tmp_path / "half_typed.py").write_text("def train(:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SyntaxError) as caught:
        registry.find("half_typed:Thing")
    error = caught.value.with_traceback(caught.tb.tb_next)  # without this test's own frame
    assert failure_report(error) == "SyntaxError: invalid syntax at half_typed.py:1: def train(:"
    report = failure_report(failing("""
        from byoa.container.contract import ResourceConfig

        ResourceConfig.read(None)
    """))
    assert 'train.py", line 4, in <module>' in report
    assert "contract" not in report.split("Traceback (end):")[1].replace("contract import", "")
    assert "importlib" not in report


def test_a_missing_import_names_the_module_and_the_author_s_line(failing):
    report = failure_report(failing("import os\nimport no_such_package_at_all\n"))
    assert report.startswith(
        "ModuleNotFoundError: No module named 'no_such_package_at_all' at train.py:2 in <module>:"
        " import no_such_package_at_all"
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="exception groups came with Python 3.11")
def test_the_members_of_an_exception_group_are_listed_with_their_lines(failing):
    report = failure_report(failing("""
        errors = []
        for work in (lambda: 1 / 0, lambda: int("x")):
            try:
                work()
            except Exception as error:
                errors.append(error)
        raise ExceptionGroup("workers failed", errors)
    """))
    lines = report.splitlines()
    assert lines[0].startswith("ExceptionGroup: workers failed (2 sub-exceptions) at train.py:8")
    assert lines[1].startswith("- ZeroDivisionError: division by zero at train.py:3 in <lambda>")
    assert lines[2].startswith("- ValueError: invalid literal for int() with base 10: 'x'")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="notes came with Python 3.11")
def test_notes_are_part_of_the_message():
    error = ValueError("bad row")
    error.add_note("while reading part-3.csv")
    assert failure_report(error) == "ValueError: bad row\nwhile reading part-3.csv"


def test_text_that_is_not_encodable_does_not_break_the_report(failing):
    error = failing("raise ValueError('caf\\udce9')")
    assert failure_report(error).startswith("ValueError: caf?")
    failure_report(error).encode("utf-8")


def test_a_source_file_that_is_not_utf8_does_not_break_the_report(failing):
    error = failing("# -*- coding: latin-1 -*-\nraise ValueError('é')\n", encoding="latin-1")
    assert failure_report(error).startswith("ValueError: é at train.py:2")


def test_a_broken_str_does_not_hide_the_failure(failing):
    report = failure_report(failing("""
        class Odd(Exception):
            def __str__(self):
                raise TypeError("no")
        raise Odd()
    """))
    assert report.startswith("Odd: (its message cannot be printed: TypeError) at train.py:5")


def test_a_note_follows_the_headline():
    assert failure_report(ValueError("x"), note="peak memory 3 GB") == (
        "ValueError: x\npeak memory 3 GB"
    )


def test_a_deep_traceback_keeps_its_end(failing):
    lines = [f"def f{n}(): return f{n + 1}()" for n in range(50)]
    report = failure_report(failing("\n".join([*lines, "def f50(): return 1 / 0", "f0()"])))
    assert report.startswith("ZeroDivisionError: division by zero at train.py:51 in f50")
    assert len(report) <= FAILURE_LIMIT_CHARACTERS
    trace = report.split("Traceback (end):\n")[1]
    assert "in f49" in trace and "in f50" in trace and "in f3\n" not in trace
    assert trace.startswith("  File ") and trace.splitlines()[-1].strip(" ~^") in (
        "", "def f50(): return 1 / 0"
    )


@pytest.mark.parametrize("length", range(300, 330))
def test_the_service_shows_whole_lines(failing, length):
    """TRAIN-141, TRAIN-142: its own words around the report take none of the report away."""
    report = failure_report(failing(f"""
        try:
            try:
                raise KeyError("a" * {length})
            except KeyError as error:
                raise ValueError("b" * {length}) from error
        except ValueError as error:
            raise RuntimeError("c" * {length}) from error
    """))
    assert failure_reason(255, report) == f"AlgorithmError: {report}, exit code: 255"
    assert report.splitlines()[-1].startswith(("RuntimeError: c", "caused by ", "    raise "))
    assert report.splitlines()[-1].endswith(("from error", "^", '("a" * ' + f"{length})"))


def test_our_own_errors_carry_their_fields_and_the_author_s_line(failing):
    report = failure_report(failing("""
        from byoa.container.errors import DataError

        raise DataError("COLUMNS", "found 4", where="record 3", expected="3 columns",
                        remedy="drop the id")
    """))
    assert report.startswith(
        "record 3: found 4; expected: 3 columns; to do: drop the id [COLUMNS]"
        " at train.py:4"
    )
    assert "Traceback" not in report


def test_a_long_message_of_our_own_errors_takes_nothing_from_what_to_do():
    """TRAIN-141"""
    report = failure_report(AlgorithmError(
        "BROKEN", "x" * 2000, where="train.py", expected="less", remedy="say it in fewer words"
    ))
    assert report.startswith("train.py: xxx")
    assert report.endswith("x …; expected: less; to do: say it in fewer words [BROKEN]")
    assert failure_reason(255, report) == f"AlgorithmError: {report}, exit code: 255"


def test_our_own_errors_begin_with_their_message(failing):
    """TRAIN-142: the service's prefix is AlgorithmError too; nobody is to read it twice."""
    assert failure_report(AlgorithmError("SAVED_NOTHING", "it left no file")) == (
        "it left no file [SAVED_NOTHING]"
    )
    report = failure_report(failing("""
        from byoa.container.errors import DataError

        try:
            raise DataError("COLUMNS", "found 4")
        except DataError as error:
            raise ValueError("no data") from error
    """))
    assert report.splitlines()[1].startswith("caused by found 4 [COLUMNS] at train.py:5")


def test_our_own_errors_do_not_name_our_own_lines():
    from byoa.algorithms import registry
    from byoa.algorithms.nearest_centroid import NearestCentroid

    def strip(caught):
        return caught.value.with_traceback(caught.tb.tb_next)  # this test is an author's file too

    with pytest.raises(HyperparameterError) as caught:
        NearestCentroid.Hyperparameters.parse({"metrik": "cosine"})
    assert failure_report(strip(caught)).endswith("[HYPERPARAMETER_INVALID]")
    with pytest.raises(AlgorithmError) as caught:
        registry.find("nearest-centroit")
    assert failure_report(strip(caught)).endswith("[ALGORITHM_UNKNOWN]")


def test_an_error_is_data():
    error = HyperparameterError("HP", "epochs is 0", expected="at least 1")
    assert error.to_json() == {"code": "HP", "message": "epochs is 0", "expected": "at least 1"}
    assert str(error) == "epochs is 0; expected: at least 1 [HP]"
    assert isinstance(DataError("A", "b"), ByoaError)


def test_the_text_of_an_exception_that_has_none_says_so():
    class Mute(Exception):
        def __str__(self):
            return None

    assert text_of(ValueError(" three is not two\n")) == "three is not two"
    assert text_of(Mute()) == "(its message cannot be printed: TypeError)"
