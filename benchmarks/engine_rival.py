"""A process that fine-tunes wholly, or by LoRA, as a script of torch and transformers does. Used by engines.py.

    python -m benchmarks.engine_rival METHOD MODEL_FOLDER ROWS LENGTH STEPS

prints the seconds of each step as a JSON list.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

__all__ = ["main"]

_RATE = 1e-5


def main(method: str, folder: str, rows: int, length: int, steps: int) -> list[float]:
    """Return the seconds of each step of random tokens; AdamW is torch's default."""
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder)
    if method == "lora8":
        model = _with_lora(model)
    model.train()
    optimizer = torch.optim.AdamW([value for value in model.parameters() if value.requires_grad], lr=_RATE)
    draw = torch.Generator().manual_seed(0)
    batch = {
        "input_ids": torch.randint(1000, 20000, (rows, length), generator=draw),
        "attention_mask": torch.ones(rows, length, dtype=torch.long),
        "labels": torch.arange(rows) % 2,
    }
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - start)
    return seconds


def _with_lora(model: Any) -> Any:
    from farsearch.baselines import METHODS
    from farsearch.models.families import layout_of

    prepare = METHODS["lora8"].prepare
    assert prepare is not None
    prepare(model, layout_of(model.config))
    return model


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))))
