"""What a call of predict costs, learned from the calls as they happen: a + b·n seconds for n
records.

A least-squares line over the calls, older ones weighing less. While all calls had the same number
of records nothing tells a from b; then all counts as a, so that joining is tried, and measured.
"""

from __future__ import annotations

_KEPT = 0.98  # of the weight of earlier calls, with each new one
_OUTLIER = 4.0  # times the expected cost count at most: a pause of the machine is no property
_WARM_UP = 5  # calls before there is an expectation
# Where the fixed part is this share of the whole, joining more gains next to nothing.
_WORTH = 0.05


class Cost:
    """The line; not thread-safe, the model's calls come one at a time."""

    def __init__(self) -> None:
        self._calls = 0
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self.fixed = 0.0  # a, seconds of a call
        self.each = 0.0  # b, seconds of a record

    def observe(self, records: int, seconds: float) -> None:
        if self._calls >= _WARM_UP:
            seconds = min(seconds, _OUTLIER * max(self.of(records), 1e-6))
        self._calls += 1
        self._weight = _KEPT * self._weight + 1
        self._n = _KEPT * self._n + records
        self._nn = _KEPT * self._nn + records * records
        self._t = _KEPT * self._t + seconds
        self._nt = _KEPT * self._nt + records * seconds
        spread = self._weight * self._nn - self._n * self._n
        if spread <= 1e-9 * self._weight * self._nn:
            self.each = 0.0
        else:
            self.each = max(0.0, (self._weight * self._nt - self._n * self._t) / spread)
        self.fixed = max(0.0, (self._t - self.each * self._n) / self._weight)

    def of(self, records: int) -> float:
        """Seconds that a call of so many records is expected to take."""
        return self.fixed + self.each * records

    def worth(self, most: int) -> int:
        """How many records are worth joining, at most `most`: more would only wait for each
        other."""
        if self.each <= 0.0:
            return most
        return max(1, min(most, int(self.fixed * (1 - _WORTH) / _WORTH / self.each)))
