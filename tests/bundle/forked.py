"""Use each bundle in a forked process, so that torch and transformers are imported once.

Reads JSON lines ``FOLDER ROWS OUT``, and writes for each: exit codes, stderr, seconds, and peak memory in MiB.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

_LIMIT_S = 20
_DATA = 8 << 30
"""Bytes at which a process that went wrong is ended, before the machine suffers."""


def _use(folder: str, rows: str, out: str) -> list[int]:
    """Use a bundle both ways: by its own code, and by ``farsearch finetune``."""
    from farsearch.cli import main
    from farsearch.runtime.main import main as board

    codes = [board(folder, ["--train", rows, "--out", out + "-board"])]
    try:
        main(["finetune", folder, "--train", rows, "--out", out])
    except SystemExit as error:
        codes.append(int(error.code or 0))
    return codes


def _child(arguments: list[str], log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA, _DATA))
    signal.alarm(_LIMIT_S)
    codes = _use(*arguments)
    Path(log + ".codes").write_text(json.dumps(codes))
    os._exit(0)


def serve() -> None:
    """Answer until the input ends."""
    import evaluate  # noqa: F401
    import torch
    from transformers import AutoModelForSequenceClassification, BertForSequenceClassification  # noqa: F401

    import farsearch.bundle.read  # noqa: F401

    torch.set_num_threads(1)
    for line in sys.stdin:
        arguments = json.loads(line)
        log = arguments[2] + ".log"
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                _child(arguments, log)
            finally:
                import traceback

                traceback.print_exc()
                os._exit(70)
        _, status, used = os.wait4(pid, 0)
        codes = Path(log + ".codes")
        print(json.dumps({
            "codes": json.loads(codes.read_text()) if codes.exists() else None,
            "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            "err": Path(log).read_text(errors="replace"),
            "seconds": time.monotonic() - began,
            "mib": used.ru_maxrss / 1024,
        }), flush=True)  # fmt: skip


if __name__ == "__main__":
    serve()
