"""Small tokenizers of every kind among the known models, trained on the reviews, as repository files."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    BertWordPieceTokenizer,
    ByteLevelBPETokenizer,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

__all__ = ["TokenizerFiles", "byte_level", "camembert", "deberta", "modernbert", "mpnet", "word_piece", "xlm_roberta"]

_SIZE = 500
_BERT = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class TokenizerFiles:
    """A tokenizer as repository files, and the ids that a configuration repeats.

    Attributes:
        rows: of the embedding table.
    """

    files: Mapping[str, bytes]
    rows: int
    ids: Mapping[str, int]


@cache
def _corpus() -> tuple[str, ...]:
    text = (resources.files("farsearch.tasks") / "reviews" / "train.tsv").read_text(encoding="utf-8")
    return tuple(line.rpartition("\t")[0] for line in text.splitlines()[1:])


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode()


def _lines(tokens: Sequence[str]) -> bytes:
    return ("\n".join(tokens) + "\n").encode()


@cache
def word_piece(*, cased: bool = False, only_vocabulary: bool = False) -> TokenizerFiles:
    """BERT's: ``vocab.txt`` and ``tokenizer.json``; Google's small models have ``vocab.txt`` alone."""
    tokenizer = BertWordPieceTokenizer(lowercase=not cased, strip_accents=None)
    tokenizer.train_from_iterator(_corpus(), vocab_size=_SIZE, special_tokens=list(_BERT), show_progress=False)
    vocabulary = tokenizer.get_vocab()
    files = {"vocab.txt": _lines(sorted(vocabulary, key=vocabulary.__getitem__))}
    if not only_vocabulary:
        again = BertWordPieceTokenizer(vocabulary, lowercase=not cased, strip_accents=None)
        files["tokenizer.json"] = again.to_str(pretty=True).encode()
        files["tokenizer_config.json"] = _json({"do_lower_case": not cased, "model_max_length": 512})
    return TokenizerFiles(files, len(vocabulary), {"pad_token_id": vocabulary["[PAD]"]})


@cache
def mpnet() -> TokenizerFiles:
    """MPNet's: the pieces of BERT between its own special tokens."""
    pieces = [token for token in word_piece().files["vocab.txt"].decode().split() if token not in _BERT]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces, "[UNK]", "<mask>"]
    names = {"bos": "<s>", "eos": "</s>", "sep": "</s>", "cls": "<s>", "unk": "[UNK]", "pad": "<pad>", "mask": "<mask>"}
    settings = {f"{name}_token": token for name, token in names.items()}
    files = {
        "vocab.txt": _lines(tokens),
        "special_tokens_map.json": _json(settings),
        "tokenizer_config.json": _json({"do_lower_case": True, "model_max_length": 512, **settings}),
    }
    return TokenizerFiles(files, len(tokens), {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2})


@cache
def byte_level() -> TokenizerFiles:
    """RoBERTa's: ``vocab.json`` and ``merges.txt``, with the mask token at the end, and ``tokenizer.json``."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(_corpus(), vocab_size=_SIZE, special_tokens=special, show_progress=False)
    with tempfile.TemporaryDirectory() as folder:
        trained.save_model(folder)
        vocabulary = json.loads(Path(folder, "vocab.json").read_text(encoding="utf-8"))
        merges = Path(folder, "merges.txt").read_bytes()
    vocabulary["<mask>"] = len(vocabulary)
    pairs = [(first, second) for first, second in map(str.split, merges.decode().splitlines()[1:])]
    whole = Tokenizer(models.BPE(vocabulary, pairs))
    whole.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    whole.decoder = decoders.ByteLevel()
    whole.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    whole.add_special_tokens([*special, AddedToken("<mask>", lstrip=True)])
    files = {
        "vocab.json": _json(vocabulary),
        "merges.txt": merges,
        "tokenizer.json": whole.to_str().encode(),
        "tokenizer_config.json": _json({"model_max_length": 512}),
    }
    return TokenizerFiles(files, len(vocabulary), {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2})


@cache
def modernbert() -> TokenizerFiles:
    """ModernBERT's: byte-level pieces first, BERT's special tokens last, ``tokenizer.json`` alone, spare rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _corpus(), trainers.BpeTrainer(vocab_size=_SIZE, initial_alphabet=letters, show_progress=False)
    )
    tokenizer.add_special_tokens(
        [AddedToken(token, lstrip=token == "[MASK]") for token in ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")]
    )
    vocabulary = tokenizer.get_vocab()
    ids = {name: vocabulary[f"[{name}]"] for name in ("CLS", "SEP", "PAD")}
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["CLS"]), ("[SEP]", ids["SEP"])],
    )
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")}
    inputs = ["input_ids", "attention_mask"]
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 8192, "model_input_names": inputs}
    files = {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({**settings, **names}),
        "special_tokens_map.json": _json(names),
    }
    of_configuration = {"cls": "CLS", "bos": "CLS", "sep": "SEP", "eos": "SEP", "pad": "PAD"}
    return TokenizerFiles(
        files, tokenizer.get_vocab_size() + 83, {f"{name}_token_id": ids[key] for name, key in of_configuration.items()}
    )


@cache
def _pieces() -> tuple[tuple[str, float], ...]:
    """The pieces of a unigram model and their scores, without special ones."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=_SIZE, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    vocabulary = json.loads(tokenizer.to_str())["model"]["vocab"]
    return tuple((piece, score) for piece, score in vocabulary if piece != "<unk>")


def _sentence_piece(special: Sequence[str], unknown: str) -> bytes:
    """A sentencepiece model with these special pieces at its start."""
    # generated modules create their classes at run time
    spm: Any = importlib.import_module("transformers.utils.sentencepiece_model_pb2_new")
    kinds = spm.ModelProto.SentencePiece
    model = spm.ModelProto()
    for piece in special:
        model.pieces.add(piece=piece, score=0.0, type=kinds.UNKNOWN if piece == unknown else kinds.CONTROL)
    for piece, score in _pieces():
        model.pieces.add(piece=piece, score=score, type=kinds.NORMAL)
    model.trainer_spec.model_type = spm.TrainerSpec.UNIGRAM
    model.trainer_spec.vocab_size = len(model.pieces)
    model.trainer_spec.unk_id, model.trainer_spec.unk_piece = special.index(unknown), unknown
    for name, candidates in (("bos", ("<s>", "[CLS]")), ("eos", ("</s>", "[SEP]")), ("pad", ("<pad>", "[PAD]"))):
        found = next((piece for piece in candidates if piece in special), None)
        setattr(model.trainer_spec, f"{name}_id", -1 if found is None else special.index(found))
        if found is not None:
            setattr(model.trainer_spec, f"{name}_piece", found)
    model.normalizer_spec.name = "identity"
    return bytes(model.SerializeToString())


def _unigram(special: Sequence[str], bos: str, eos: str) -> Tokenizer:
    """A unigram tokenizer with special pieces at its start and the mask token at its end, in RoBERTa's template."""
    vocabulary = [*((piece, 0.0) for piece in special), *_pieces(), ("<mask>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=special.index("<unk>")))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A {eos}",
        pair=f"{bos} $A {eos} {eos} $B {eos}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (bos, eos)],
    )
    return tokenizer


@cache
def xlm_roberta() -> TokenizerFiles:
    """XLM-RoBERTa's: a sentencepiece model, and ``tokenizer.json`` with RoBERTa's special tokens before its pieces."""
    tokenizer = _unigram(["<s>", "<pad>", "</s>", "<unk>"], "<s>", "</s>")
    files = {
        "sentencepiece.bpe.model": _sentence_piece(["<unk>", "<s>", "</s>"], "<unk>"),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({"model_max_length": 512}),
    }
    return TokenizerFiles(files, tokenizer.get_vocab_size(), {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2})


@cache
def camembert() -> TokenizerFiles:
    """CamemBERT's: as XLM-RoBERTa's, with unused pieces before its own special tokens."""
    special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    tokenizer = _unigram(special, "<s>", "</s>")
    files = {
        "sentencepiece.bpe.model": _sentence_piece(["<unk>", "<s>", "</s>"], "<unk>"),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": _json({"model_max_length": 512}),
    }
    return TokenizerFiles(files, tokenizer.get_vocab_size(), {"bos_token_id": 5, "pad_token_id": 1, "eos_token_id": 6})


@cache
def deberta() -> TokenizerFiles:
    """DeBERTa v3's: a sentencepiece model alone, whose mask token is added after its pieces; spare rows."""
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    files = {
        "spm.model": _sentence_piece(special, "[UNK]"),
        "tokenizer_config.json": _json({"do_lower_case": False, "vocab_type": "spm"}),
    }
    return TokenizerFiles(files, len(special) + len(_pieces()) + 100, {"pad_token_id": 0})
