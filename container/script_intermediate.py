"""/opt/ml/output/intermediate copied to S3 while the script runs, where sagemaker_s3_output asks
for it (TK-13).

A platform that has made the directory copies it by itself (TRAIN-33): then nothing is done here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from byoa.container.contract import Layout
from byoa.container.errors import HyperparameterError
from byoa.container.script_environment import OUTPUT_HYPERPARAMETER, REGION_HYPERPARAMETER
from byoa.container.script_source import ENDPOINT_VARIABLE

PERIOD_SECONDS = 1.0
_Stamp = tuple[int, int]  # size and time of the last change


@contextlib.contextmanager
def intermediate_sync(
    layout: Layout, values: Mapping[str, Any], environ: Mapping[str, str],
    say: Callable[[str], None],
) -> Iterator[None]:
    """Copies in a thread of its own until the block has ended; what is left then, too."""
    target = values.get(OUTPUT_HYPERPARAMETER)
    directory = layout.output / "intermediate"
    if not target or directory.exists():
        yield
        return
    url = urlsplit(str(target))
    directory.mkdir(parents=True)
    if url.scheme == "file":  # the directory is where they belong
        yield
        return
    if url.scheme != "s3" or not url.netloc:
        raise HyperparameterError(
            "OUTPUT_INVALID", f"{target!r} is no place in S3", where=OUTPUT_HYPERPARAMETER,
            expected="s3://bucket/prefix",
        )
    parts = (url.path.strip("/"), environ.get("TRAINING_JOB_NAME", ""), "output/intermediate")
    prefix = "/".join(part for part in parts if part)
    region = environ.get("AWS_REGION") or values.get(REGION_HYPERPARAMETER)
    copies = _Copies(directory, url.netloc, prefix, _client(environ, region), say)
    copies.start()
    try:
        yield
    finally:
        copies.finish()


def _client(environ: Mapping[str, str], region: Any) -> Any:
    import boto3

    return boto3.client(
        "s3", region_name=str(region) if region else None,
        endpoint_url=environ.get(ENDPOINT_VARIABLE) or None,
    )


class _Copies:
    """Uploads a file once it has stayed the same for a period, and again when it has changed."""

    def __init__(
        self, directory: Path, bucket: str, prefix: str, client: Any, say: Callable[[str], None]
    ) -> None:
        self._directory, self._bucket, self._prefix = directory, bucket, prefix
        self._client, self._say = client, say
        self._seen: dict[Path, _Stamp] = {}
        self._uploaded: dict[Path, _Stamp] = {}
        self._failed: set[Path] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="intermediate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def finish(self) -> None:
        self._ended.set()
        self._thread.join()
        self._pass(final=True)
        self._say(f"{len(self._uploaded)} intermediate files are in"
                  f" s3://{self._bucket}/{self._prefix}/")
        self._client.close()

    def _watch(self) -> None:
        while not self._ended.wait(PERIOD_SECONDS):
            self._pass(final=False)

    def _pass(self, *, final: bool) -> None:
        for path in sorted(self._directory.rglob("*")):
            try:
                status = path.stat()
            except OSError:  # gone meanwhile, or a link to nothing
                continue
            stamp = status.st_size, status.st_mtime_ns
            settled = final or self._seen.get(path) == stamp
            self._seen[path] = stamp
            if path.is_file() and settled and self._uploaded.get(path) != stamp:
                self._upload(path, stamp)

    def _upload(self, path: Path, stamp: _Stamp) -> None:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        key = f"{self._prefix}/{path.relative_to(self._directory).as_posix()}"
        try:
            self._client.upload_file(str(path), self._bucket, key)
        except (OSError, Boto3Error, BotoCoreError, ClientError) as error:
            if path not in self._failed:  # once: it is tried again each second
                self._failed.add(path)
                self._say(f"{path} cannot be copied to S3: {error}")
        else:
            self._failed.discard(path)
            self._uploaded[path] = stamp
