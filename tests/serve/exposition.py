"""A strict reader of Prometheus's text format 0.0.4, for tests."""

from __future__ import annotations

import re

Sample = tuple[str, frozenset[tuple[str, str]]]

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = rf'({_NAME})="((?:[^"\\\n]|\\\\|\\"|\\n)*)"'
_LINE = re.compile(rf"({_NAME})(?:\{{((?:{_LABEL},?)*)\}})? (\S+)")
_SUFFIXES = ("_bucket", "_sum", "_count")


class Exposition:
    """Samples by name and labels; what breaks the format fails the test."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[str, str] = {}
        self.samples: dict[Sample, float] = {}
        assert text.endswith("\n")
        family = ""
        for line in text.splitlines():
            if line.startswith("# HELP "):
                family = line.split(" ", 3)[2]
                assert family not in self.kinds, f"{family} twice"
                assert len(line.split(" ", 3)) == 4
            elif line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name == family and kind in ("counter", "gauge", "histogram")
                self.kinds[name] = kind
            else:
                self._sample(line, family)
        for name, kind in self.kinds.items():
            if kind == "histogram":
                self._check_histogram(name)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of the samples that have these labels."""
        wanted = set(labels.items())
        return sum(
            value for (found, given), value in self.samples.items()
            if found == name and wanted <= given
        )

    def labels(self, name: str, label: str) -> set[str]:
        return {
            dict(given)[label] for found, given in self.samples
            if found == name and label in dict(given)
        }

    def _sample(self, line: str, family: str) -> None:
        match = _LINE.fullmatch(line)
        assert match is not None, line
        name = match[1]
        own = [name] + [name.removesuffix(each) for each in _SUFFIXES if name.endswith(each)]
        assert family in own, f"{name} within {family}"
        labels = frozenset(re.findall(_LABEL, match[2] or ""))
        assert (name, labels) not in self.samples, f"{line} twice"
        self.samples[name, labels] = float(match[5])

    def _check_histogram(self, name: str) -> None:
        buckets = [
            (float(dict(given)["le"]), value) for (found, given), value in self.samples.items()
            if found == f"{name}_bucket"
        ]
        assert [bound for bound, _ in buckets] == sorted(bound for bound, _ in buckets)
        counts = [value for _, value in buckets]
        assert counts == sorted(counts)
        assert buckets[-1][0] == float("inf")
        assert counts[-1] == self(f"{name}_count")
