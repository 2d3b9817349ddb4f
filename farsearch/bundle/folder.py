"""Create the folder of a bundle atomically, and open folders and archives."""

from __future__ import annotations

import os
import secrets
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farsearch.errors import BadInput, BundleError, MissingResource
from farsearch.far.display import shown, shown_text
from farsearch.files import disk_errors, move_into_place
from farsearch.runtime.job import new_folder

__all__ = ["check_new_folder", "opened_folder", "whole_folder"]

_ARCHIVE = ".zip"

_MOST_RATIO = 30
"""Maximum ratio of a bundle's size to its archive's. Weights hardly shrink, code and JSON to an eighth."""

_MOST_ENTRIES = 10_000

_MOST_NAME = 200
"""Maximum characters of a file's name; file systems allow 255 bytes."""


def check_new_folder(out: Path) -> None:
    """Check that a folder can be written.

    Raises:
        BadInput: when ``out`` is a file, or a folder that is not empty.
    """
    try:
        new_folder(str(out))
    except FileExistsError as error:
        raise BadInput(str(error)) from error


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yield a working folder that is atomically renamed to ``out`` when the block succeeds.

    If ``out`` ends with ``.zip`` the folder becomes an uncompressed archive: weights do not compress.

    Raises:
        BadInput: when ``out`` is a file, or a folder that is not empty.
        MissingResource: when the disk refuses.
    """
    out = out.absolute()
    check_new_folder(out)
    work = out.with_name(f".{out.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with disk_errors(out):
        work.mkdir(parents=True)
        packed = work.with_name(f"{work.name}{_ARCHIVE}")
        try:
            yield work
            if out.suffix == _ARCHIVE:
                _pack(work, packed, out.stem)
                move_into_place(packed, out)
                return
            if out.is_dir():
                out.rmdir()
            move_into_place(work, out)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            packed.unlink(missing_ok=True)


def _pack(folder: Path, archive: Path, name: str) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                file.write(path, f"{name}/{path.relative_to(folder).as_posix()}")


@contextmanager
def opened_folder(bundle: Path) -> Iterator[Path]:
    """Yield the folder of a bundle; an archive is unpacked beside itself for the duration of the block.

    Raises:
        BundleError: when the archive is no bundle, or would write outside of its folder.
    """
    if bundle.is_dir() or bundle.suffix != _ARCHIVE:
        yield bundle
        return
    work = bundle.absolute().with_name(f".{bundle.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with disk_errors(bundle):
        try:
            yield _unpack(bundle, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _unpack(bundle: Path, work: Path) -> Path:
    try:
        with zipfile.ZipFile(bundle) as file:
            _check_entries(bundle, file, work)
            file.extractall(work)
    # zipfile raises these for a truncated, encrypted (RuntimeError) or unsupported archive
    except (zipfile.BadZipFile, zlib.error, RuntimeError, EOFError) as error:
        raise BundleError(
            f"{bundle} is damaged: {shown_text(str(error), 160)}; copy it again, or export it again"
        ) from error
    except FileNotFoundError as error:
        raise BundleError(f"{bundle} is no bundle: it can't be read; make one with farsearch export") from error
    folders = list(work.iterdir()) if work.is_dir() else []
    if len(folders) != 1 or not folders[0].is_dir():
        raise BundleError(f"{bundle} is no bundle: it has not one folder; make one with farsearch export")
    return folders[0]


def _check_entries(bundle: Path, file: zipfile.ZipFile, work: Path) -> None:
    """Check names and sizes before unpacking, which never exceeds the declared sizes.

    Raises:
        BundleError: for a name outside the folder, or more bytes than a bundle of this size can have.
        MissingResource: when the disk has too little space.
    """
    entries = file.infolist()
    outside = [entry.filename for entry in entries if not _inside(work, entry.filename)]
    if outside:
        raise BundleError(f"{bundle} names {shown(outside[0])}, which is outside the bundle; do not use it")
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    if any(entry.compress_type not in methods for entry in entries):
        raise BundleError(f"{bundle} is packed in another way than zip's own; export it again")
    packed, unpacked = bundle.stat().st_size, sum(entry.file_size for entry in entries)
    most = _MOST_RATIO * packed
    if len(entries) > _MOST_ENTRIES or unpacked > most or sum(entry.compress_size for entry in entries) > packed:
        raise BundleError(
            f"{bundle} has {len(entries):,} files of {unpacked:,} bytes; one of {packed:,} bytes has at most "
            f"{_MOST_ENTRIES:,} of {most:,}: do not use it"
        )
    free = shutil.disk_usage(bundle.absolute().parent).free
    if unpacked > free:
        raise MissingResource(f"{bundle} needs {unpacked:,} bytes and its disk has {free:,}; free some space")


def _inside(work: Path, name: str) -> bool:
    if any(len(part) > _MOST_NAME for part in name.split("/")):
        return False
    try:
        return (work / name).resolve().is_relative_to(work.resolve())
    except (OSError, ValueError):  # a path that is too long, or holds a NUL
        return False
