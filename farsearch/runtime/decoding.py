"""Decompress and decode the bytes of a file into text."""

import gzip
import io
import re
import shlex
import zlib
from typing import Iterator, Tuple

from .row_errors import RowProblem

__all__ = ["check_is_data", "end_of", "ending_of", "lines_of", "text_of", "unreadable"]

_GZIP, _ZIP = b"\x1f\x8b", b"PK\x03\x04"
_LFS_POINTER = b"version https://git-lfs"

_NOT_UTF8 = re.compile("[\udc80-\udcff]")
"""Bytes that are not UTF-8, as ``surrogateescape`` represents them."""

_UTF16_SAMPLE = 1000
"""Bytes to inspect for UTF-16 without a byte order mark: every second byte of Latin letters is NUL."""


def ending_of(name: str) -> str:
    """Return the extension of a file's name, in lower case and without the dot; of ``rows.csv.gz`` it is ``csv``."""
    plain = name.lower()[:-3] if name.lower().endswith(".gz") else name.lower()
    return plain.rsplit(".", 1)[1] if "." in plain else ""


def check_is_data(data: bytes, name: str) -> None:
    """Raise if the content is a Git LFS pointer instead of the file.

    Raises:
        RowProblem: with the command that fetches the file.
    """
    if data.startswith(_LFS_POINTER):
        raise RowProblem(
            "{} line 1: the file is a Git LFS pointer, not the data; fetch the data: git lfs pull".format(name)
        )


def text_of(data: bytes, name: str) -> str:
    """Return the text of a file's content; bytes that are not UTF-8 are decoded by ``surrogateescape``.

    Args:
        name: content of a name that ends with ``.gz`` is decompressed.

    Raises:
        RowProblem: for another encoding, an archive, or damaged content.
    """
    check_is_data(data, name)
    data = _unpacked(data, name)
    utf16 = _utf16(data)
    if utf16:
        raise RowProblem("{} line 1: the file is UTF-16; save it as UTF-8: {}".format(name, _iconv(utf16, name)))
    data = data[3:] if data.startswith(b"\xef\xbb\xbf") else data
    text = data.decode("utf-8", "surrogateescape")
    if "\r" in text and "\n" not in text:
        raise RowProblem("{} line 1: its lines end in CR alone; save it with LF or CRLF line ends".format(name))
    return text


def _unpacked(data: bytes, name: str) -> bytes:
    named = name.lower().endswith(".gz")
    if data.startswith(_GZIP) and not named:
        raise RowProblem("{0} line 1: the file is packed by gzip; rename it to {0}.gz, or unpack it".format(name))
    if data.startswith(_ZIP):
        raise RowProblem(
            "{} line 1: the file is a zip archive or a spreadsheet; unpack it, or save it as CSV".format(name)
        )
    if not named:
        return data
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read()
    except (OSError, EOFError, zlib.error) as error:
        reason = str(error).split("\n")[0]
        raise RowProblem("{} line 1: it can't be unpacked by gzip: {}; copy it again".format(name, reason)) from error


def _utf16(data: bytes) -> str:
    """The name of the content's UTF-16 encoding; empty for other encodings."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    sample = data[:_UTF16_SAMPLE]
    for first, encoding in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        nuls = sample[first::2].count(0)
        if len(sample) >= 16 and nuls > 0.8 * (len(sample) // 2) and not sample[1 - first :: 2].count(0):
            return encoding
    return ""


def _iconv(encoding: str, name: str) -> str:
    return "iconv -f {} -t UTF-8 {} > {}".format(encoding, shlex.quote(name), shlex.quote("utf8-" + name))


def unreadable(line: str, name: str) -> str:
    """Return an error message for a line with invalid bytes; empty for a valid line."""
    byte = _NOT_UTF8.search(line)
    if byte:
        return "byte {:#04x} is not UTF-8; save the file as UTF-8, from Latin-1 with {}".format(
            ord(byte.group()) - 0xDC00, _iconv("WINDOWS-1252", name)
        )
    return "there is a NUL byte, which no text has: remove it" if "\0" in line else ""


def lines_of(text: str) -> Iterator[Tuple[int, str]]:
    """Yield the lines of a text with their numbers from 1, without line ends and without blank lines at the text's end.

    Only a line feed ends a line, with or without a carriage return before it: other line ends of ``splitlines`` occur
    within texts.
    """
    at, number, last = 0, 1, end_of(text)
    while at < last:
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield number, text[at : end - 1 if text[end - 1 : end] == "\r" and end > at else end]
        at, number = end + 1, number + 1


def end_of(text: str) -> int:
    """Return the position where the blank lines at the end of a text begin."""
    written = len(text.rstrip())
    end = text.find("\n", written)
    return 0 if not written else len(text) if end < 0 else end + 1
