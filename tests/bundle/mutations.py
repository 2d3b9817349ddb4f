"""A bundle with one malicious or accidental change and valid checksums."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farsearch.runtime.bundle_files import digest_of, file_digest

__all__ = ["Mutation", "leaf_mutations", "rewritten", "signed", "targeted_mutations"]

Change = Callable[[Path], None]

_FILES = ("far.json", "model/config.json", "model/tokenizer.json", "model/tokenizer_config.json")

_VALUES: dict[str, Any] = {
    "null": None, "true": True, "zero": 0, "negative": -1, "huge": 10**8, "beyond 64 bits": 10**40, "half": 0.5,
    "1e308": 1e308, "NaN": float("nan"), "text": "x", "NaN as text": "NaN", "long text": "a" * 3_000_000,
    "escape": "\x1b[31m\n", "empty list": [], "empty table": {}, "list": [1, 2], "table": {"a": 1},
    "many": list(range(100_000)), "underscores": "__class__.__init__",
}  # fmt: skip

_DEEP = "[" * 900 + "]" * 900


@dataclass(frozen=True)
class Mutation:
    """A named change of a bundle's folder."""

    name: str
    change: Change


def signed(folder: Path) -> None:
    """Update the checksums in far.json, and its own digest."""
    data = json.loads((folder / "far.json").read_text())
    data["sha256"] = {name: file_digest(str(folder / name)) for name in data["sha256"] if (folder / name).is_file()}
    data["digest"] = digest_of(data)
    (folder / "far.json").write_text(json.dumps(data))


def rewritten(name: str, change: Callable[[Any], Any]) -> Change:
    """Change a JSON file: write the result of ``change``, or the object changed in place if the result is None."""

    def apply(folder: Path) -> None:
        data = json.loads((folder / name).read_text())
        other = change(data)
        (folder / name).write_text(json.dumps(data if other is None else other))

    return apply


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of all JSON values, but of lists and large tables only the first two."""
    if path:
        yield path
    items = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    for key, item in items[:2] if isinstance(value, list) or len(items) > 50 else items:
        yield from _paths(item, (*path, key))


def _put(path: tuple[Any, ...], value: Any, *, remove: bool = False) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        if remove:
            del data[path[-1]]
        else:
            data[path[-1]] = value

    return change


def leaf_mutations(bundle: Path, each: int, seed: int = 0) -> list[Mutation]:
    """Replace every value of every JSON file by ``each`` others, drawn by a seed; remove and add keys."""
    draw = random.Random(seed)
    found = []
    for name in _FILES:
        for path in _paths(json.loads((bundle / name).read_text())):
            if path[0] in ("sha256", "digest"):
                continue
            where = f"{name} {'.'.join(map(str, path))}"
            for kind in draw.sample(sorted(_VALUES), each):
                found.append(Mutation(f"{where}: {kind}", rewritten(name, _put(path, _VALUES[kind]))))
            if draw.random() < 0.2:
                found.append(Mutation(f"{where}: removed", rewritten(name, _put(path, None, remove=True))))
                more = _put((*path[:-1], "more"), {"a": 1}) if isinstance(path[-1], str) else _put(path, _DEEP)
                found.append(Mutation(f"{where}: one more", rewritten(name, more)))
    return found


def _tensors(change: Callable[[dict[str, Any]], None]) -> Change:
    """Change the header of the start weights."""

    def apply(folder: Path) -> None:
        path = folder / "start.safetensors"
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])

    return apply


def _config(**values: Any) -> Change:
    return rewritten("model/config.json", lambda data: data.update(values))


def _phase(**values: Any) -> Change:
    return rewritten("far.json", lambda data: data["phase"].update(values))


def _normaliser(value: Any) -> Change:
    return rewritten("model/tokenizer.json", lambda data: data.update(normalizer=value))


def _replace(pattern: dict[str, str], content: str, times: int) -> dict[str, Any]:
    return {
        "type": "Sequence",
        "normalizers": [{"type": "Replace", "pattern": pattern, "content": content} for _ in range(times)],
    }


def _split(expression: str) -> Change:
    step = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return rewritten("model/tokenizer.json", lambda data: data.update(pre_tokenizer=step))


def _without_vocabulary(step: dict[str, Any]) -> Change:
    """Add a step after the normaliser, and remove the plain vocabulary that would be the fallback."""

    def apply(folder: Path) -> None:
        (folder / "model/vocab.txt").unlink()
        path = folder / "model/tokenizer.json"
        data = json.loads(path.read_text())
        data["normalizer"] = {"type": "Sequence", "normalizers": [data["normalizer"], step]}
        path.write_text(json.dumps(data))

    return apply


def _raw(name: str, text: str) -> Change:
    def apply(folder: Path) -> None:
        (folder / name).write_text(text)

    return apply


def targeted_mutations() -> list[Mutation]:
    """Deliberate attacks, by name."""
    first = "bert.embeddings.word_embeddings.weight"
    changes: dict[str, Change] = {
        "a vocabulary of 6 million": _config(vocab_size=6_000_000),
        "a vocabulary of 4 million": _config(vocab_size=4_000_000),
        "100,000 layers": _config(num_hidden_layers=100_000),
        "1,000 layers": _config(num_hidden_layers=1_000),
        "a width of 100,000": _config(hidden_size=100_000, intermediate_size=100_000),
        "a million positions": _config(max_position_embeddings=1_000_000),
        "a billion labels": _config(num_labels=10**9),
        "a large family": _raw("model/config.json", '{"model_type": "mixtral"}'),
        "defaults of a family": rewritten("model/config.json", lambda data: {"model_type": "deberta-v2"}),
        "a family that nobody knows": _config(model_type="nobodys", auto_map={"AutoConfig": "evil.Config"}),
        "code of others": _config(auto_map={"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}),
        "a tokenizer of others": rewritten(
            "model/tokenizer_config.json", lambda data: data.update(auto_map={"AutoTokenizer": ["evil.T", None]})
        ),
        "a kernel of others": _config(_attn_implementation="kernels-community/flash-attn"),
        "a quantiser": _config(quantization_config={"quant_method": "bitsandbytes"}),
        "100 million epochs": _phase(epochs=1e8),
        "no learning rate": _phase(learning_rate=float("nan")),
        "an infinite learning rate": _phase(learning_rate=float("inf")),
        "a batch of a billion": _phase(batch_size=10**9),
        "texts of a million": _phase(max_length=1_000_000),
        "texts beyond the positions": _phase(max_length=129),
        "an odd module": rewritten(
            "far.json", lambda data: data["phase"]["layout"].update(embeddings="bert.__class__.__init__")
        ),
        "a missing module": rewritten("far.json", lambda data: data["phase"]["layout"].update(norms=["bert.nothing"])),
        "no names": rewritten("far.json", lambda data: data["phase"]["weights"].update(names=[])),
        "another name": rewritten("far.json", lambda data: data["phase"]["weights"]["names"].append("more")),
        "a learner twice": _phase(learners=[[1, 1], [1]]),
        "a learner below zero": _phase(learners=[[-1], [1]]),
        "a learner outside": _phase(learners=[[64], [1]]),
        "a padding that is no token": rewritten(
            "far.json", lambda data: data["phase"]["tokenizer"].update(pad_id=1_000_000)
        ),
        "an argument as special token": rewritten(
            "far.json", lambda data: data["phase"]["tokenizer"]["special"].update(tokenizer_object="x")
        ),
        "a chain that doubles": _normaliser(_replace({"String": "a"}, "aa", 40)),
        "a long replacement": _normaliser(_replace({"Regex": "."}, "b" * 900, 3)),
        "an endless expression": _split("(a+)+$"),
        "an expression that is endless on the rows": _without_vocabulary(
            {"type": "Replace", "pattern": {"Regex": "(a+)+\\?"}, "content": "b"}
        ),
        "a template of many": rewritten("model/tokenizer.json", lambda data: data.update(post_processor={
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "X", "type_id": 0}}] * 900, "pair": [],
            "special_tokens": {"X": {"id": "X", "ids": [1] * 100_000, "tokens": ["a"] * 100_000}},
        })),
        "padding to a billion": rewritten("model/tokenizer.json", lambda data: data.update(padding={
            "strategy": {"Fixed": 10**9}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]",
        })),
        "deep JSON": _raw("model/tokenizer.json", "[" * 200_000),
        "a long number": _raw("model/config.json", '{"model_type": "bert", "vocab_size": ' + "9" * 10_000 + "}"),
        "no JSON": _raw("model/config.json", "{"),
        "a header of many dimensions": _tensors(lambda header: header[first].update(shape=[1] * 10_000)),
        "a shape beyond 64 bits": _tensors(lambda header: header[first].update(shape=[0, 10**30])),
        "a header that overlaps": _tensors(lambda header: header[first].update(data_offsets=[0, 4])),
        "a tensor less": _tensors(lambda header: header.pop(first) and None),
        "a tensor of another name": _tensors(lambda header: header.update({"x": header.pop(first)})),
        "metadata of numbers": _tensors(lambda header: header.update(__metadata__={"a": 1})),
    }  # fmt: skip
    return [Mutation(name, change) for name, change in changes.items()]
