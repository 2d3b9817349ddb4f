"""Translate errors of transformers and its readers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

from farsearch.errors import BadInput, MissingResource
from farsearch.models.source import ModelSource

__all__ = ["quiet", "reading"]


@contextmanager
def reading(source: ModelSource) -> Iterator[None]:
    """Translate errors in a model's files, and silence transformers.

    This includes its warning on weights that are initialised at random, so callers check which were missing. Outside of
    the block warnings are unchanged, because users call transformers too.

    Raises:
        MissingResource: in one line.
    """
    try:
        with quiet():
            yield
    except (BadInput, MissingResource):
        raise
    except Exception as error:  # transformers, tokenizers and safetensors share no base; tokenizers raises Exception
        raise _unreadable(source, error) from error
    except BaseException as error:
        # assertions of the Rust code of tokenizers derive from BaseException
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(source, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' warnings and progress bars."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _unreadable(source: ModelSource, error: BaseException) -> MissingResource:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rstrip(".:")[:160] if lines else type(error).__name__
    return MissingResource(
        f"the model {source.name!r} can't be loaded: {reason}; save it again with save_pretrained, or pass another "
        "with `model`"
    )
