"""A processing program that keeps SageMaker's contract, of the standard library alone."""

import json
import sys
import traceback
from pathlib import Path

CONFIG = Path("/opt/ml/config/processingjobconfig.json")
MESSAGE = Path("/opt/ml/output/message")


def say(text):
    MESSAGE.parent.mkdir(parents=True, exist_ok=True)
    MESSAGE.write_text(text[:1000], encoding="utf-8")


def read(directory):
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    if not files:
        raise FileNotFoundError(f"{directory} holds no files")
    return b"".join(path.read_bytes() for path in files)


def write(directory, size):
    (directory / "report.json").write_text(json.dumps({"bytes": size}), encoding="utf-8")


def process():
    job = json.loads(CONFIG.read_text(encoding="utf-8"))
    inputs = [Path(each["S3Input"]["LocalPath"]) for each in job["ProcessingInputs"] or ()]
    size = sum(len(read(directory)) for directory in inputs)
    for output in job["ProcessingOutputConfig"]["Outputs"]:
        write(Path(output["S3Output"]["LocalPath"]), size)
    say(f"read {size} bytes – done")


def main():
    try:
        process()
    except Exception as error:
        traceback.print_exc()
        say(f"{type(error).__name__}: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.modules["process"] = sys.modules["__main__"]
    if Path(__file__).with_name("fault.py").exists():
        import fault  # noqa: F401 - it replaces functions of this module
    sys.exit(main())
