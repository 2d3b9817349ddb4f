"""Rows of Parquet files and of folders of ``Dataset.save_to_disk``, with class names."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import ipc, parquet

from farsearch.runtime.records import RowProblem, Source
from farsearch.runtime.tables import Line
from farsearch.tasks.folders import STATE

__all__ = ["read_arrow"]

_MISSING = -1
"""Id of a missing class, as ``datasets`` writes it."""


def read_arrow(path: Path, name: str) -> tuple[Source, dict[str, tuple[str, ...]]]:
    """Return the rows of a Parquet file or a folder, and the names of classes by column.

    Ids of classes are replaced by their names if the file has these.

    Raises:
        RowProblem: for an unreadable file, and for a repeated column.
    """
    try:
        table = _folder(path) if path.is_dir() else _parquet(path)
        cells = table.to_pydict()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, RowProblem):
            raise
        reason = str(error).split("\n")[0][:160]
        form = "a folder of Dataset.save_to_disk" if path.is_dir() else "Parquet"
        raise RowProblem(f"{name} can't be read as {form}: {reason}; save it again") from error
    classes = {column: names for column, names in _classes(table.schema).items() if column in cells}
    for column, names in classes.items():
        cells[column] = [_named(cell, names) for cell in cells[column]]
    columns = tuple(cells)

    def lines() -> Iterator[Line]:
        for number, row in enumerate(zip(*cells.values(), strict=True), 1):
            yield Line(f"row {number}", dict(zip(columns, row, strict=True)), "", "")

    note = "".join(f"{column} has the names of its classes" for column in list(classes)[:1])
    return Source(name, lines, columns, note=note), classes


def _parquet(path: Path) -> pyarrow.Table:
    columns = list(parquet.read_schema(path).names)
    if len(set(columns)) < len(columns):
        raise RowProblem(f"{path.name}: a column is repeated; name each once: {', '.join(columns)}")
    table = parquet.read_table(path)
    for i, field in enumerate(table.schema):
        if pyarrow.types.is_decimal(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pyarrow.float64()))
    return table


def _folder(path: Path) -> pyarrow.Table:
    state = json.loads((path / STATE).read_text(encoding="utf-8"))
    tables = []
    for file in state["_data_files"]:
        with pyarrow.memory_map(str(path / Path(file["filename"]).name)) as opened:
            tables.append(ipc.open_stream(opened).read_all())
    return pyarrow.concat_tables(tables)


def _classes(schema: pyarrow.Schema) -> dict[str, tuple[str, ...]]:
    """Names of classes by column, which ``datasets`` stores in a file's metadata."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        classes = {column: _names(feature) for column, feature in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}
    return {column: names for column, names in classes.items() if names}


def _names(feature: Any) -> tuple[str, ...]:
    """The names of a class label, or of the class labels in a list."""
    while isinstance(feature, Mapping) and "feature" in feature:
        feature = feature["feature"]
    if not isinstance(feature, Mapping) or feature.get("_type") != "ClassLabel":
        return ()
    return tuple(map(str, feature.get("names") or ()))


def _named(cell: Any, names: tuple[str, ...]) -> Any:
    if isinstance(cell, list):
        return [_named(item, names) for item in cell]
    if cell == _MISSING:
        return None
    return names[cell] if isinstance(cell, int) and 0 <= cell < len(names) else cell
