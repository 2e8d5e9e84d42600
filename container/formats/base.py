"""What a format is: bytes to a batch of records, and predictions to bytes.

The helpers here are shared by all formats: charset, label columns, float32 and error places.
"""

from __future__ import annotations

import codecs
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from byoa.container.errors import DataError
from byoa.container.formats.limits import LIMITS, Limits, columns
from byoa.container.media_types import MediaType, UnsupportedMediaType

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "Batch",
    "Format",
    "Part",
    "body_empty",
    "byte",
    "charset_of",
    "charset_unknown",
    "columns",
    "label_size_of",
    "not_installed",
    "packed",
    "parameter",
    "place",
    "split_labels",
    "sub_place",
    "to_float32",
    "to_utf8",
    "whole_number",
    "widen",
]

_UTF8_NAMES = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
# Notations of Python and of host names. Punycode takes minutes for what fits into a body.
_NO_CHARSETS = frozenset({"idna", "punycode", "unicode-escape", "raw-unicode-escape", "undefined"})


class Batch(NamedTuple):
    """Records as arrays that the caller owns and may write to.

    features: float32 (records, columns), C order. labels: None, float32 (records,) or, with
    several label columns, (records, label columns).
    """

    features: NDArray[np.float32]
    labels: NDArray[np.float32] | None


class Format(ABC):
    """One way of writing records; stateless, so one instance serves all threads."""

    name: ClassVar[str]
    media_types: ClassVar[tuple[str, ...]]
    """Content types, the canonical one first."""
    suffixes: ClassVar[tuple[str, ...]]
    """File name endings, with the dot."""
    sample: ClassVar[str]
    """A short body for a human to imitate; a sentence where the format is binary."""
    answer_parameters: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Parameters of Accept that `encode` honours, with the values it knows."""
    writes: ClassVar[bool] = True
    """Whether `encode` writes answers, so that Accept may ask for this format."""
    open_ended: ClassVar[bool] = False
    """Whether columns behind a record's last one are zero, so that `widen` may add them."""

    @abstractmethod
    def decode(
        self,
        data: bytes | memoryview,
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str | None = None,
        limits: Limits = LIMITS,
    ) -> Batch:
        """The records of a body or file, at least one.

        `label_size` leading columns are labels, unless the media type's own `label_size` says
        otherwise; a label that the format names is read in any case. `where` begins the place
        in errors. Raises DataError: BODY_EMPTY, BODY_MALFORMED, RECORD_NOT_A_NUMBER,
        RECORD_WIDTH; LimitExceeded where there is more than `limits`; UnsupportedMediaType for
        parameters it cannot honour.
        """

    def encode(self, predictions: Any, media: MediaType | None = None) -> bytes:
        """The body of an answer, one item a record; `predictions` as in formats.predictions.

        Raises AlgorithmError: PREDICTION_SHAPE, PREDICTION_NOT_ENCODABLE.
        """
        raise NotImplementedError(f"{self.name} is a format of requests alone")

    def settled(
        self, data: bytes | memoryview, media: MediaType | None = None
    ) -> MediaType | None:
        """`media` with what the first file of a channel, `data`, decides for those behind it."""
        return media

    def streamed(
        self,
        read: Callable[[int], bytes],
        media: MediaType | None = None,
        *,
        label_size: int = 0,
        where: str,
        size: int,
    ) -> Iterator[Batch] | None:
        """The records of a file, or of several that follow one another, in runs of about `size`
        bytes; None where a piece that ends at a `boundary` is decoded instead.

        `read` gives as many bytes as it is asked for, unless they end before.
        """
        return None

    def boundary(self, data: bytes | memoryview, media: MediaType | None = None) -> int | None:
        """How many leading bytes of `data`, a piece of concatenated files, are whole records; 0
        where none is whole yet; None where the format's records cannot be told apart in a stream.

        Bytes that no record begins with count as whole, so that `decode` names what is wrong.
        """
        return None


class Part(str):
    """The place of a part of a file: errors count the records and bytes that are before it.

    `opening` records of the part are the file's first ones, put before it to compare with them.
    """

    records: int
    bytes: int
    opening: int

    def __new__(cls, where: str, records: int = 0, bytes: int = 0, opening: int = 0) -> Part:
        part = super().__new__(cls, where)
        part.records, part.bytes, part.opening = records, bytes, opening
        return part


def place(where: str | None, record: int | None = None, column: int | None = None) -> str | None:
    """`train/part-2.csv record 3, column 7`; records and columns are counted from 1."""
    if record is not None and isinstance(where, Part) and record > where.opening:
        record += where.records - where.opening
    spot = "" if record is None else f"record {record}"
    if column is not None:
        spot = f"{spot}, column {column}" if spot else f"column {column}"
    return " ".join(part for part in (where, spot) if part) or None


def sub_place(where: str | None, what: str) -> str:
    """`train/part-2.csv label of`, before a record's number."""
    if isinstance(where, Part):
        return Part(f"{where} {what}", where.records, where.bytes, where.opening)
    return f"{where} {what}" if where else what


def byte(where: str | None, position: int) -> str:
    """` (byte 17, counted from 0)`, in the whole file."""
    return f" (byte {position + (where.bytes if isinstance(where, Part) else 0)}, counted from 0)"


def body_empty(where: str | None, sample: str) -> DataError:
    return DataError(
        "BODY_EMPTY", "there is no record", where=where,
        expected=f"at least one record, such as {sample}",
    )


def not_installed(package: str, extra: str, where: str | None) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        "MEDIA_TYPE_NOT_INSTALLED", f"{package}, which reads this format, is not installed",
        where=where, expected=f"byoa with its extra {extra!r}",
        remedy=f"pip install 'byoa[{extra}]'; an image installs it in its Dockerfile",
    )


def parameter(
    media: MediaType | None, name: str, choices: tuple[str, ...], default: str
) -> str:
    """A media type's parameter out of `choices`. Raises UnsupportedMediaType."""
    if media is None or not media.parameters:
        return default
    value = media.parameters.get(name, default).lower()
    if value not in choices:
        raise UnsupportedMediaType(
            "MEDIA_TYPE_UNSUPPORTED",
            f"{name}={value} in Content-Type {media}",
            expected=" or ".join(f"{name}={choice}" for choice in choices),
        )
    return value


def label_size_of(media: MediaType | None, default: int) -> int:
    """The media type's `label_size` where it has one, else `default` (TRAIN-125)."""
    text = "the number of leading label columns, such as label_size=1"
    size = whole_number(media, "label_size", text)
    return default if size is None else size


def whole_number(media: MediaType | None, name: str, expected: str) -> int | None:
    """A media type's parameter, a whole number; None without. Raises UnsupportedMediaType."""
    if media is None or not media.parameters:
        return None
    text = media.parameters.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise UnsupportedMediaType(
            "MEDIA_TYPE_UNSUPPORTED", f"{name}={text} in Content-Type {media}", expected=expected
        )
    return int(text)


def charset_of(media: MediaType | None) -> str:
    """The media type's `charset` in lower case; UTF-8 where it has none."""
    if media is None or not media.parameters:
        return "utf-8"
    return media.parameters.get("charset", "utf-8").lower()


def to_utf8(data: bytes | memoryview, media: MediaType | None, where: str | None) -> bytes:
    """A text body as UTF-8 bytes without a byte order mark; `charset` is honoured.

    UTF-8 itself is not verified here, the parsers do that where it matters.
    """
    charset = charset_of(media)
    body = data if isinstance(data, bytes) else bytes(data)
    if charset not in _UTF8_NAMES:
        body = _recode(body, charset, media, where)
    return body[3:] if body.startswith(codecs.BOM_UTF8) else body


def charset_unknown(
    charset: str, media: MediaType | None, where: str | None = None
) -> UnsupportedMediaType:
    return UnsupportedMediaType(
        "MEDIA_TYPE_UNSUPPORTED", f"charset={charset} in Content-Type {media} is not known",
        where=where, expected="a charset that Python knows; utf-8 is best",
    )


def _recode(body: bytes, charset: str, media: MediaType | None, where: str | None) -> bytes:
    try:
        # Codecs such as zlib or hex are not text and would be a way to inflate a body.
        codec = codecs.lookup(charset)
        if not getattr(codec, "_is_text_encoding", True) or codec.name in _NO_CHARSETS:
            raise LookupError(charset)
        return body.decode(charset).encode("utf-8")
    except LookupError:
        raise charset_unknown(charset, media, where) from None
    except UnicodeError as error:
        why = str(error)
        if isinstance(error, UnicodeDecodeError):
            why = f"{body[error.start]:#04x}, {error.reason}{byte(where, error.start)}"
        raise DataError(
            "BODY_MALFORMED", f"the text is not {charset}: {why}", where=where,
            expected="a body in the charset that its Content-Type names",
        ) from None


def to_float32(values: Any) -> NDArray[np.float32]:
    """A new, writable float32 array in C order; what float32 cannot hold becomes infinite."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def packed(values: Sequence[float]) -> NDArray[np.float32]:
    """Python numbers, at least one, as a new float32 array (n,); beyond float32 is infinite.

    struct takes a third of the time that numpy needs to find out what a list holds. Raises
    OverflowError for an integer beyond float64.
    """
    import numpy as np

    if type(values[0]) is int:
        try:
            whole = struct.pack(f"{len(values)}q", *values)
            integers = np.frombuffer(whole, dtype=np.int64)
            return integers.astype(np.float64).astype(np.float32)  # as all numbers are read
        except struct.error:  # a float among them, or beyond 64 bits
            pass
    array = np.empty(len(values), dtype=np.float32)
    try:
        struct.pack_into(f"{len(values)}f", array.data, 0, *values)
    except struct.error as error:
        raise OverflowError("an integer is beyond float64") from error
    return array


def split_labels(
    matrix: NDArray[np.float32], label_size: int, where: str | None, limits: Limits = LIMITS
) -> Batch:
    """Take the leading `label_size` columns off as labels. Raises DataError RECORD_WIDTH, and
    LimitExceeded."""
    records, width = matrix.shape
    limits.require(records, width - label_size, where)
    if label_size == 0:
        return Batch(matrix, None)
    if width <= label_size:
        raise DataError(
            "RECORD_WIDTH",
            f"has {columns(width)}, none is left after {columns(label_size)} of labels",
            where=place(where, 1),
            expected=f"the label first, then at least one feature (label_size={label_size})",
            remedy="declare records without a label with label_size=0 in their content type",
        )
    labels = matrix[:, 0].copy() if label_size == 1 else matrix[:, :label_size].copy()
    return Batch(matrix[:, label_size:].copy(), labels)


def widen(batch: Batch, width: int) -> Batch:
    """The batch with zeros in columns behind its own, for a format that is `open_ended`."""
    import numpy as np

    missing = width - batch.features.shape[1]
    if missing <= 0:
        return batch
    return Batch(np.pad(batch.features, ((0, 0), (0, missing))), batch.labels)
