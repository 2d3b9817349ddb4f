"""The tokenizer of a bundle by transformers, with the plain vocabulary as a fallback."""

import os
from functools import partial
from typing import Any, Callable, Dict, Iterator, Tuple

from ..bundle_files import BundleFiles
from ..tokenizer_proof import VOCABULARY, proven_tokenizer

__all__ = ["load_tokenizer"]


def load_tokenizer(bundle: BundleFiles) -> Any:
    """Return a tokenizer that gives each sentence of the bundle's proof its expected ids.

    Raises:
        BundleProblem: when no way to make one does.
    """
    return proven_tokenizer(bundle, _ways(bundle, bundle.phase["tokenizer"]), "transformers")


def _ways(bundle: BundleFiles, settings: Dict[str, Any]) -> Iterator[Tuple[str, Callable[[], Any]]]:
    """Names and functions of the ways to make the tokenizer, the best first."""
    import transformers

    special = dict(settings["special"])
    yield (
        "tokenizer.json",
        lambda: transformers.PreTrainedTokenizerFast(tokenizer_file=bundle.path("model/tokenizer.json"), **special),
    )
    vocabulary = bundle.path("model/" + VOCABULARY)
    if os.path.isfile(vocabulary):
        arguments = dict(special, do_lower_case=settings["lower_case"])
        for name in ("BertTokenizerFast", "BertTokenizer"):
            if hasattr(transformers, name):
                yield name, partial(getattr(transformers, name), vocabulary, **arguments)
