"""A processing job's files: the two of its configuration, and the message that it leaves.

Part of `byoa.container.contract`, which is where to import it from. Readers are tolerant, as those
of a training job are; a program run by hand may have neither config file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from byoa.container.contract_config import RESOURCE_FILE
from byoa.container.contract_layout import Layout, entry, read_json, write_json
from byoa.container.errors import ContractError

PROCESSING_FILE = "processingjobconfig.json"
PROCESSING_CODE_PATH = "/opt/ml/processing/input/code"  # where the SDK's processors put a script
MESSAGE_LIMIT_BYTES = 1024

# --- processingjobconfig.json (PROC-03, PROC-04) --------------------------------------------------


@dataclass(frozen=True)
class ProcessingPlace:
    """An input or an output: its name, and its directory in the container's own terms.

    `local_path` is None where the platform moves no files, as for a feature group.
    """

    name: str
    local_path: str | None
    app_managed: bool = False  # the program moves the files itself (PROC-16)


@dataclass(frozen=True)
class ProcessingJobConfig:
    """The request, as the platform writes it down for the container."""

    values: Mapping[str, Any] = field(default_factory=dict)

    def write(self, layout: Layout) -> None:
        write_json(layout.processing_config / PROCESSING_FILE, dict(self.values))

    @classmethod
    def read(cls, layout: Layout) -> ProcessingJobConfig | None:
        """The config; None where there is none."""
        document = read_json(layout.processing_config / PROCESSING_FILE, dict, minimal=None)
        return None if document is None else cls(document)

    @property
    def name(self) -> str:
        return self.values.get("ProcessingJobName") or ""

    @property
    def inputs(self) -> tuple[ProcessingPlace, ...]:
        return self._places(self.values.get("ProcessingInputs"), "InputName", "S3Input")

    @property
    def outputs(self) -> tuple[ProcessingPlace, ...]:
        config = self._entry("ProcessingOutputConfig", self.values.get("ProcessingOutputConfig"))
        return self._places(config.get("Outputs"), "OutputName", "S3Output")

    def _places(self, listed: Any, name: str, where: str) -> tuple[ProcessingPlace, ...]:
        found = []
        for each in self._entry(f"the list of {where}s", listed, list):
            place = self._entry(f"an entry with {where}", each)
            path = self._entry(where, place.get(where)).get("LocalPath")
            found.append(
                ProcessingPlace(place.get(name) or "", path, bool(place.get("AppManaged")))
            )
        return tuple(found)

    @staticmethod
    def _entry(key: str, value: Any, kind: type = dict) -> Any:
        return entry(PROCESSING_FILE, key, value, kind)


# --- resourceconfig.json (PROC-05) ----------------------------------------------------------------


@dataclass(frozen=True)
class ProcessingHosts:
    """The hosts of a processing job, as one of them sees it."""

    current_host: str = "algo-1"
    hosts: tuple[str, ...] = ("algo-1",)

    def write(self, layout: Layout) -> None:
        document = {"current_host": self.current_host, "hosts": list(self.hosts)}
        write_json(layout.processing_config / RESOURCE_FILE, document)

    @classmethod
    def read(cls, layout: Layout) -> ProcessingHosts:
        """A single host where the file is absent."""
        path = layout.processing_config / RESOURCE_FILE
        document = read_json(path, dict, minimal=None)
        if document is None:
            return cls()
        host = entry(RESOURCE_FILE, "current_host", document.get("current_host"), str) or "algo-1"
        hosts = entry(RESOURCE_FILE, "hosts", document.get("hosts"), list) or [host]
        return cls(host, tuple(hosts))


# --- output/message (PROC-12) ---------------------------------------------------------------------


def write_message(layout: Layout, text: str) -> None:
    """Write the exit message, cut to what the service shows and never inside a character."""
    data = text.encode("utf-8", errors="replace")[:MESSAGE_LIMIT_BYTES]
    layout.output.mkdir(parents=True, exist_ok=True)
    layout.message.write_bytes(data.decode("utf-8", errors="ignore").encode("utf-8"))


def read_message(layout: Layout) -> str | None:
    """The message as the service shows it, None where there is none.

    Raises ContractError for bytes that are no UTF-8: the service fails the job for them.
    """
    if not layout.message.is_file():
        return None
    with layout.message.open("rb") as file:
        data = file.read(MESSAGE_LIMIT_BYTES + 1)
    cut = len(data) > MESSAGE_LIMIT_BYTES
    try:
        return data[:MESSAGE_LIMIT_BYTES].decode("utf-8")
    except UnicodeDecodeError as error:
        if cut and error.reason == "unexpected end of data":  # the limit fell inside a character
            return data[: error.start].decode("utf-8")
        raise ContractError(
            "MESSAGE_NOT_UTF8", f"{layout.message} is not UTF-8: {error.reason} at byte"
            f" {error.start}",
            expected="UTF-8 text; the service fails the job for anything else",
            remedy='write it with open(…, "w", encoding="utf-8")',
        ) from None
