"""What ``train.py`` lets transformers import: every family trains without the packages that are only installed."""

from __future__ import annotations

import json
import subprocess
import sys

from farsearch.runtime.imports import UNNEEDED

_FAMILIES = ("bert", "distilbert", "electra", "roberta", "mpnet", "deberta-v2", "modernbert", "camembert")

_CODE = """
import json, sys
from farsearch.runtime.imports import leave_out_unneeded
leave_out_unneeded()
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast
small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=50,
             pad_token_id=0, bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2)
ids = torch.ones(2, 5, dtype=torch.long)
losses = {}
for family in FAMILIES:
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **small))
    loss = model(input_ids=ids, attention_mask=ids, labels=ids[:, 0]).loss
    loss.backward()
    torch.optim.AdamW(model.parameters()).step()
    losses[family] = loss.item()
print(json.dumps([losses, sorted(name for name, module in sys.modules.items() if module is not None)]))
"""


def test_families_train_without_the_packages() -> None:
    """None of them is imported, whether installed or not."""
    code = _CODE.replace("FAMILIES", repr(_FAMILIES))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    losses, modules = json.loads(done.stdout)
    assert set(losses) == set(_FAMILIES)
    assert all(0 < loss < 10 for loss in losses.values())
    assert not {name.partition(".")[0] for name in modules} & set(UNNEEDED)


def test_packages_that_are_imported_already_stay() -> None:
    """Only what nothing of this process uses yet is left out."""
    code = (
        "import scipy\nfrom farsearch.runtime.imports import leave_out_unneeded\nleave_out_unneeded()\n"
        "import scipy.sparse\ntry:\n    import sklearn\nexcept ImportError:\n    print('left out')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "left out")
