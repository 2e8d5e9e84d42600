"""`python -m byoa.algorithms definitions`: the MetricDefinitions of what BYOA_ALGORITHM logs."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from byoa.algorithms import registry
from byoa.container.contract import ALGORITHM_VARIABLE
from byoa.container.errors import ByoaError
from byoa.container.metrics import Metrics

USAGE = f"usage: {ALGORITHM_VARIABLE}=NAME python -m byoa.algorithms definitions"


def main(arguments: Sequence[str]) -> int:
    name = os.environ.get(ALGORITHM_VARIABLE)
    if list(arguments) != ["definitions"] or not name:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        algorithm = registry.find(name)
    except ByoaError as error:
        print(f"byoa: {error}", file=sys.stderr)
        return 1
    definitions = Metrics.definitions(algorithm.metrics)
    if not definitions:
        print(f"byoa: {algorithm.__name__} names no metrics; list what it logs: metrics ="
              ' ("train:loss",)', file=sys.stderr)
    print(json.dumps([{"Name": each.name, "Regex": each.regex} for each in definitions], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
