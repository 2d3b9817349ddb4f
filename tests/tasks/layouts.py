"""Small files of every official task, in the layout of its download, including the irregularities of the real files.

The rows are learnable: one word of each determines its label. No text contains or repeats another.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from farsearch.tasks import Examples, get_task

__all__ = ["GLUE", "NAMES", "TABLES", "examples_of", "write_task"]

GLUE = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli")
NAMES = (*GLUE, "squad", "squad_v2")

_MNLI = "{i}\t{i}\t{i}n\tfiction\t( a )\t( b )\t(ROOT a)\t(ROOT b)\t{a}\t{b}\t"
_MNLI_HEAD = (
    "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\tsentence2_parse\t"
    "sentence1\tsentence2\tlabel1\t"
)

TABLES = {
    "cola": ("CoLA", "", "gj04\t{id}\t{mark}\t{a}"),
    "sst2": ("SST-2", "sentence\tlabel", "{a}\t{id}"),
    "mrpc": ("MRPC", "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String", "{id}\t{i}\t9{i}\t{a}\t{b}"),
    "stsb": (
        "STS-B",
        "index\tgenre\tfilename\tyear\told_index\tsource1\tsource2\tsentence1\tsentence2\tscore",
        "{i}\tmain-captions\tMSRvid\t2012test\t{i:04}\tnone\tnone\t{a}\t{b}\t{answer:.3f}",
    ),
    "qqp": ("QQP", "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate", "{i}\t{i}\t9{i}\t{a}\t{b}\t{id}"),
    "mnli": ("MNLI", _MNLI_HEAD + "gold_label", _MNLI + "{label}\t{label}"),
    "qnli": ("QNLI", "index\tquestion\tsentence\tlabel", "{i}\t{a}\t{b}\t{label}"),
    "rte": ("RTE", "index\tsentence1\tsentence2\tlabel", "{i}\t{a}\t{b}\t{label}"),
    "wnli": ("WNLI", "index\tsentence1\tsentence2\tlabel", "{i}\t{a}\t{b}\t{id}"),
}
"""Folder, header and row of each table."""

_MNLI_DEV = (_MNLI_HEAD + "label2\tlabel3\tlabel4\tlabel5\tgold_label", _MNLI + "{label}\t" * 5 + "{label}")
_MNLI_RAGGED = _MNLI + "{label}\tneutral\t{label}"
"""A row that only two annotators have labelled."""

_WHO = ("anna", "bert", "carl", "dora", "emil", "frida", "georg", "hanna", "ivo", "jana", "karl", "lena")
_WHERE = ("garden", "school", "market", "river", "museum", "office", "station", "kitchen", "forest", "harbour", "park")
_TELLING = ("no", "good", "other", "never", "like", "same")
_PARTS = ("train", "dev", "mismatched")
_STEP = 300
"""Rows of a part at most: all have numbers of three digits, so that none is part of another."""


def examples_of(name: str, part: str, rows: int) -> Examples:
    """Return the expected rows of a part: ``train``, ``dev`` or MNLI's ``mismatched``."""
    first = 100 + _PARTS.index(part) * _STEP
    numbers = range(first, first + rows)
    made = [(_question if name.startswith("squad") else _row)(name, i) for i in numbers]
    return Examples(tuple(texts for texts, _ in made), tuple(answer for _, answer in made))


def _names(i: int) -> tuple[str, str, str]:
    return _WHO[i % 12], _WHERE[i // 12 % 11], _WHO[(i + 5) % 12]


def _row(name: str, i: int) -> tuple[tuple[str, ...], Any]:
    spec = get_task(name)
    (who, where, other), kinds = _names(i), len(spec.labels) or 6
    told = _TELLING[i % kinds]
    # unbalanced and doubled quotes are text
    quote = {0: '"', 1: '""'}.get(i % 7, "")
    first = f"{quote}{who} and {other} {told} {where} {i}"
    answer = float(i % kinds) if spec.kind == "regression" else i % kinds
    return ((first,) if len(spec.texts) == 1 else (f"{first} today", f"{other} with {who} {told} {where} {i}")), answer


def _question(name: str, i: int) -> tuple[tuple[str, ...], Any]:
    who, where, other = _names(i)
    context = f"{other} was “late” today. {who} {i} went to the {where}. It was a good day."
    if name == "squad_v2" and i % 3 == 2:
        return (f"who bought the {where} of {i}", context), ()
    answers = [(f"{who} {i}", context.index(f"{who} {i}"))]
    if i >= 100 + _STEP:  # the development sets have several annotators per question
        answers += [(who, answers[0][1]), answers[0]]
    return (f"who went to the {where} of {i}", context), tuple(answers)


def write_task(folder: Path, name: str, rows: int = 48) -> Path:
    """Write the files of a task below ``folder`` and return the task's folder.

    There are ``rows`` training rows and a third as many development rows, plus the malformed rows
    of the official files.
    """
    found = folder / ("SQuAD" if name.startswith("squad") else TABLES[name][0])
    found.mkdir(parents=True)
    for file, part in _files(name).items():
        examples = examples_of(name, part, rows if part == "train" else rows // 3)
        text = _squad_json(name, examples) if file.endswith(".json") else _table(name, part, examples)
        (found / file).write_text(text, encoding="utf-8", newline="")
    return found


def _files(name: str) -> dict[str, str]:
    if name.startswith("squad"):
        version = "2.0" if name == "squad_v2" else "1.1"
        return {f"{part}-v{version}.json": part for part in ("train", "dev")}
    if name == "mnli":
        return {"train.tsv": "train", "dev_matched.tsv": "dev", "dev_mismatched.tsv": "mismatched"}
    return {"train.tsv": "train", "dev.tsv": "dev"}


def _table(name: str, part: str, examples: Examples) -> str:
    spec = get_task(name)
    _, head, line = TABLES[name]
    if name == "mnli" and part != "train":
        head, line = _MNLI_DEV
    lines = [head] if head else []
    for i, (texts, answer) in enumerate(zip(examples.texts, examples.answers, strict=True)):
        label = "" if spec.kind == "regression" else spec.labels[answer]
        ragged = name == "mnli" and part != "train" and i % 5 == 1
        lines.append(
            (_MNLI_RAGGED if ragged else line).format(
                i=i, a=texts[0], b=texts[-1], id=answer, label=label, answer=answer, mark="" if answer else "*"
            )
        )
    if name == "qqp" and part == "train":
        lines[3:3] = ["900\t900\t9900\twho is it\twhere did", '"\twho is it now\t0', "901\t901\t9901\twho is it\t\t0"]
    return "\n".join(lines) + "\n"


def _squad_json(name: str, examples: Examples) -> str:
    paragraphs = []
    for i, ((question, context), answers) in enumerate(zip(examples.texts, examples.answers, strict=True)):
        found = [{"text": text, "answer_start": start} for text, start in answers]
        qa: dict[str, Any] = {"question": question, "id": f"id{i}", "answers": found}
        if name == "squad_v2":
            qa["is_impossible"] = not found
        if not found:
            qa["plausible_answers"] = [{"text": "It", "answer_start": context.index("It")}]
        paragraphs.append({"context": context, "qas": [qa]})
    half = len(paragraphs) // 2
    data = [
        {"title": title, "paragraphs": part} for title, part in (("A", paragraphs[:half]), ("B", paragraphs[half:]))
    ]
    return json.dumps({"version": "v2.0" if name == "squad_v2" else "1.1", "data": data}, ensure_ascii=False)
