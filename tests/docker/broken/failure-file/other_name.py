"""The failure file has another name."""

import train


def report(error):
    (train.ML / "output" / "failure.txt").write_text(str(error))


train.report = report
