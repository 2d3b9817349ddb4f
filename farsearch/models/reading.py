"""Errors of transformers and of what it reads with, translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

from farsearch.errors import BadInput, MissingResource
from farsearch.models.source import ModelSource

__all__ = ["quiet", "reading"]


@contextmanager
def reading(source: ModelSource) -> Iterator[None]:
    """Translate what is wrong with a model's files, and let transformers be quiet meanwhile.

    Its warning of weights that it draws at random is one of what is silenced, so whoever loads weights here checks what
    was missing. Outside, the warnings are the user's, who calls transformers too.

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
        # tokenizers, written in Rust, lets its assertions through, and derives them from BaseException
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(source, error) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers show neither warnings nor progress bars."""
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
        "with --model"
    )
