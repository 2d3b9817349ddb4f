"""Errors of transformers and of what it reads with, translated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transformers

from farsearch.errors import BadInput, MissingResource
from farsearch.models.source import ModelSource

__all__ = ["reading"]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


@contextmanager
def reading(source: ModelSource) -> Iterator[None]:
    """Translate what is wrong with a model's files.

    Raises:
        MissingResource: in one line.
    """
    try:
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


def _unreadable(source: ModelSource, error: BaseException) -> MissingResource:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0].rstrip(".:")[:160] if lines else type(error).__name__
    return MissingResource(
        f"the model {source.name!r} can't be loaded: {reason}; save it again with save_pretrained, or pass another "
        "with --model"
    )
