"""A user's own files: tables, JSON lines and Parquet as records, and SQuAD's JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.errors import MissingResource
from farsearch.far.board.records import ENDINGS, Record, RowProblem, missing_column, records_of
from farsearch.far.shown import PATH, shown
from farsearch.tasks.files import file_errors, read_bytes

__all__ = ["DataFile", "open_data"]

_KNOWN = (*(f".{ending}" for ending in ENDINGS), ".parquet", ".json")


@dataclass(frozen=True)
class DataFile:
    """A file, opened: its columns are known, its rows are not read.

    Attributes:
        columns: of a table its header, of JSON lines the keys of the first; none of SQuAD's JSON.
        data: its content, or the rows of a Parquet file by column.
    """

    name: str
    columns: tuple[str, ...]
    data: bytes | dict[str, list[Any]]

    @property
    def is_squad(self) -> bool:
        """Whether it is JSON as SQuAD has it."""
        return self.name.lower().endswith(".json")

    def check(self, columns: Sequence[str], option: str) -> None:
        """Refuse columns that are not there.

        Raises:
            RowProblem: naming the columns there are.
        """
        for column in columns:
            if column not in self.columns:
                line = " line 1" if isinstance(self.data, bytes) else ""
                problem = missing_column(column, self.columns)
                raise RowProblem(f"{self.name}{line}: {problem}; name one of them with {option}")

    def records(self, columns: Sequence[str], skip: list[str] | None) -> Iterator[Record]:
        """The rows, in order; ``skip`` as ``records_of`` has it.

        Args:
            columns: those that are read.
        """
        if isinstance(self.data, bytes):
            yield from records_of(self.data, self.name, None, skip, columns)
            return
        names = list(self.data)
        for number, cells in enumerate(zip(*self.data.values(), strict=True), 1):
            yield f"{self.name} row {number}", dict(zip(names, cells, strict=True))


def open_data(path: Path) -> DataFile:
    """Read a file and find its columns.

    Raises:
        MissingResource: when it can't be read.
        RowProblem: for an ending that is unknown, and for a header or a file that is broken.
    """
    name = path.name
    with file_errors(path):
        is_folder, exists = path.is_dir(), path.exists()
    if is_folder:
        raise MissingResource(f"{shown(str(path), PATH)} is a folder; name the file in it")
    if path.suffix.lower() not in _KNOWN and exists:
        ending = f"the ending {path.suffix}" if path.suffix else "a name without ending"
        raise RowProblem(f"{name}: {ending} says nothing; save it as one of {', '.join(_KNOWN)}")
    if path.suffix.lower() == ".parquet":
        return _open_parquet(path)
    data = read_bytes(path)
    if not data.strip():
        wanted = "rows" if "json" in path.suffix.lower() else "a header and rows"
        raise RowProblem(f"{name} line 1: the file is empty; give it {wanted}")
    if path.suffix.lower() == ".json":
        return DataFile(name, (), data)
    return DataFile(name, _columns_of(data, name), data)


def _columns_of(data: bytes, name: str) -> tuple[str, ...]:
    """The columns that the first record names."""
    for _, cells in records_of(data, name, skip=[]):
        return tuple(cells)
    list(records_of(data, name))  # raises what is wrong with its rows
    raise RowProblem(f"{name} has no rows; give it at least two")


def _open_parquet(path: Path) -> DataFile:
    read_bytes(path)  # whether it can be read is told as of every other file
    # it comes with datasets, and takes half a second
    import pyarrow
    from pyarrow import parquet

    try:
        columns = list(parquet.read_schema(path).names)
        if len(set(columns)) < len(columns):
            raise RowProblem(f"{path.name}: a column is there twice; name each once: {', '.join(columns)}")
        table = parquet.read_table(path)
        for i, field in enumerate(table.schema):
            if pyarrow.types.is_decimal(field.type):
                table = table.set_column(i, field.name, table.column(i).cast(pyarrow.float64()))
        return DataFile(path.name, tuple(columns), table.to_pydict())
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).split("\n")[0][:160]
        raise RowProblem(f"{path.name} can't be read as Parquet: {reason}; save it again") from error
