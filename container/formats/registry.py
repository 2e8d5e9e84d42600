"""The one list of formats, for channels and HTTP bodies alike.

To add a format: one file, one line in `_FORMATS`, one test file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from types import MappingProxyType

from byoa.container.formats import (
    image,
    json_document,
    json_lines,
    libsvm,
    npy,
    parquet,
    recordio_images,
    recordio_protobuf,
    text_csv,
)
from byoa.container.formats.base import Format
from byoa.container.media_types import (
    MediaType,
    NotAcceptable,
    UnsupportedMediaType,
    parse_accept,
    parse_media_type,
)

__all__ = ["all", "answers", "by_suffix", "find", "negotiate"]

_FORMATS: tuple[Format, ...] = (
    text_csv.FORMAT,
    json_document.FORMAT,
    json_lines.FORMAT,
    recordio_protobuf.FORMAT,
    npy.FORMAT,
    libsvm.FORMAT,
    parquet.FORMAT,
    image.FORMAT,
    recordio_images.FORMAT,
)
_ANSWERS = tuple(each for each in _FORMATS if each.writes)
_BY_MEDIA_TYPE = {name: each for each in _FORMATS for name in each.media_types}
_BY_SUFFIX = {suffix: each for each in _FORMATS for suffix in each.suffixes}


def all() -> Sequence[Format]:
    """Every format, in the order of preference."""
    return _FORMATS


def answers() -> Sequence[Format]:
    """The formats that answers are written in, in the order of preference."""
    return _ANSWERS


def by_suffix(suffix: str) -> Format | None:
    """The format of files that end in `suffix`, `.csv` say; None where there is none."""
    return _BY_SUFFIX.get(suffix.lower())


def find(content_type: str | MediaType) -> Format:
    """The format of a Content-Type. Raises UnsupportedMediaType, listing formats and samples."""
    if isinstance(content_type, MediaType):
        return _find(content_type.essence)
    if not content_type.strip():
        raise UnsupportedMediaType(
            "MEDIA_TYPE_MISSING", "there is no Content-Type", expected=_samples()
        )
    return _find(parse_media_type(content_type).essence)


def _find(essence: str) -> Format:
    found = _BY_MEDIA_TYPE.get(essence)
    if found is None:
        raise UnsupportedMediaType(
            "MEDIA_TYPE_UNSUPPORTED", f"Content-Type {essence} is not supported",
            expected=_samples(),
        )
    return found


@lru_cache(maxsize=256)
def negotiate(accept: str | None, default: str) -> tuple[Format, MediaType]:
    """The format of the answer and its Content-Type, by the Accept header.

    Absent, empty or */* gives `default` (ITK-04). Otherwise the greatest q wins; among equals
    the more specific range, then the earlier one, then `default`, then the registry's order.
    Parameters that the format's `encode` honours are kept. Raises NotAcceptable.
    """
    usual = parse_media_type(default)
    usual_format = find(usual)
    if not usual_format.writes:
        raise _not_acceptable(default)
    usual = MediaType(usual.type, usual.subtype, _known(usual_format, usual))
    ranges = parse_accept(accept)
    best: tuple[tuple[float, int, int, bool], Format, MediaType] | None = None
    for essence, each in _candidates(usual.essence):
        matched = _match(ranges, essence, each)
        if matched is None:
            continue
        order, range_ = matched
        rank = (range_.q, range_.specificity, -order, essence == usual.essence)
        if best is None or rank > best[0]:
            if range_.specificity < 2 and essence == usual.essence:
                media = usual
            else:
                kind, _, subtype = essence.partition("/")
                media = MediaType(kind, subtype, _known(each, range_))
            best = (rank, each, media)
    if best is None:
        raise _not_acceptable(accept)
    return best[1], best[2]


def _candidates(first: str) -> Iterator[tuple[str, Format]]:
    """All media types of answers: the default, the canonical ones, then aliases."""
    yield first, _BY_MEDIA_TYPE[first]
    for each in answers():
        yield each.media_types[0], each
    for each in answers():
        for alias in each.media_types[1:]:
            yield alias, each


def _match(
    ranges: Sequence[MediaType], essence: str, each: Format
) -> tuple[int, MediaType] | None:
    """The range that decides about `essence`: of those that cover it, the most specific."""
    covering = [
        (range_.specificity, -order)
        for order, range_ in enumerate(ranges)
        if range_.covers(essence) and _answers(each, range_)
    ]
    if not covering:
        return None
    order = -max(covering)[1]
    return None if ranges[order].q == 0 else (order, ranges[order])


def _answers(each: Format, range_: MediaType) -> bool:
    """Whether no parameter asks for something that the format's `encode` cannot do."""
    return not any(
        name in each.answer_parameters and value.lower() not in each.answer_parameters[name]
        for name, value in range_.parameters.items()
    )


def _known(each: Format, media: MediaType) -> MappingProxyType[str, str]:
    return MappingProxyType({
        name: value.lower()
        for name, value in media.parameters.items()
        if value.lower() in each.answer_parameters.get(name, ())
    })


def _not_acceptable(accept: str | None) -> NotAcceptable:
    return NotAcceptable(
        "NOT_ACCEPTABLE", f"no answer can be given as Accept {(accept or '')[:200]!r}",
        expected=_samples(_ANSWERS),
    )


def _samples(formats: Iterable[Format] = _FORMATS) -> str:
    return "one of " + "; ".join(f"{each.media_types[0]} ({each.sample})" for each in formats)
