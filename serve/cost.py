"""What a call of predict costs, learned from the calls as they happen, and how many records are
worth a call.

A least-squares line, a + b·n seconds for n records, over the calls, older ones weighing less. While
all calls had the same number of records nothing tells a from b; then all counts as a, so that
joining is tried, and measured.

No model keeps to its line: what a convolution works on leaves the processor's cache at some n, and
then twice as many records take three times as long. So besides the line there is what a record has
taken in calls of up to 1, 2, 4, 8 … records; the line tells of the sizes that have not been tried.
"""

from __future__ import annotations

_KEPT = 0.98  # of the weight of earlier calls, with each new one
_OUTLIER = 4.0  # times the expected cost count at most: a pause of the machine is no property
_WARM_UP = 5  # calls before there is an expectation
# Joining more is worth while where a record gains more than this share by it.
_WORTH = 0.05
# Of a size's calls what was quicker than the mean weighs more: much makes a call slower by chance.
_SLOWER, _QUICKER = 0.05, 0.2


class Cost:
    """The line and the sizes. Without a lock: the model's calls come one at a time, and who looks
    beside one sees an estimate that is a call old."""

    def __init__(self) -> None:
        self._calls = 0
        self._weight = self._n = self._nn = self._t = self._nt = 0.0
        self.fixed = 0.0  # a, seconds of a call
        self.each = 0.0  # b, seconds of a record
        # By the exponent of the size: seconds of a record; None: not tried, 0.0: once, which may
        # have prepared something.
        self._sizes: list[float | None] = []
        self._worth: dict[int, int] = {}  # as `worth` told since the last call

    def observe(self, records: int, seconds: float) -> None:
        if records < 1:
            return
        exponent = _exponent(records)
        if self._calls and self._is_new(exponent):
            return  # it may have prepared something, as the first joint call of all does
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
        self._observe_size(exponent, seconds / records)
        self._worth.clear()

    def _is_new(self, exponent: int) -> bool:
        """Whether no call had that size before; it is known from now on."""
        sizes = self._sizes
        if len(sizes) <= exponent:
            sizes += [None] * (exponent + 1 - len(sizes))
        if sizes[exponent] is not None:
            return False
        sizes[exponent] = 0.0
        return True

    def _observe_size(self, exponent: int, each: float) -> None:
        sizes = self._sizes
        if self._is_new(exponent):
            return
        known = sizes[exponent]
        if not known:
            sizes[exponent] = each
        else:
            sizes[exponent] = known + (_SLOWER if each > known else _QUICKER) * (each - known)

    def of(self, records: int) -> float:
        """Seconds that a call of so many records is expected to take."""
        return self.fixed + self.each * records

    def worth(self, most: int) -> int:
        """How many records are worth joining, at most `most`: more would only wait for each
        other."""
        if not self._calls:
            return most
        found = self._worth.get(most)
        if found is None:
            costs = [self._each(exponent) for exponent in range(_exponent(most) + 1)]
            least = min(costs)
            best = next(k for k, cost in enumerate(costs) if cost * (1 - _WORTH) <= least)
            found = self._worth[most] = min(most, 1 << best)
        return found

    def _each(self, exponent: int) -> float:
        """Seconds of a record in calls of so many."""
        known = self._sizes[exponent] if exponent < len(self._sizes) else None
        return known or self.of(1 << exponent) / (1 << exponent)


def _exponent(records: int) -> int:
    """0 for 1 record, 1 for 2, 2 for 3 and 4, 3 for 5 to 8 …"""
    return (records - 1).bit_length()
