"""A bundle is untrusted: any change with valid checksums is refused in one line or works within resource limits.

Each bundle is used both by ``train.py`` and by ``farsearch finetune``.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.bundle.mutations import Mutation, leaf_mutations, signed, targeted_mutations

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

MOST_MIB = 2048
MOST_S = 20
MOST_LINE = 700

QUICK = (
    "a vocabulary of 4 million", "a million positions", "a large family", "code of others", "a kernel of others",
    "100 million epochs", "an odd module", "a missing module", "no names", "a learner twice",
    "an argument as special token", "a chain that doubles", "an expression that is endless on the rows",
    "a template of many", "a shape beyond 64 bits",
)  # fmt: skip
"""So many of the targeted ones that each check is tried once, in every run of the tests."""


class Server:
    """A process with all imports done, which forks one process for each bundle."""

    def __init__(self, folder: Path, bundle: Path) -> None:
        self._folder, self._bundle, self._count = folder, bundle, 0
        self._rows = folder / "mine.tsv"
        texts = [f"a good film aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa! {i}\t{i % 2}" for i in range(6)]
        self._rows.write_text("\n".join(["sentence\tlabel", *texts]) + "\n")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked.py"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, env={**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    def use(self, mutation: Mutation | None) -> tuple[dict[str, Any], Path]:
        """Apply a change and use the bundle; return the result and the folder of its models."""
        self._count += 1
        work = self._folder / str(self._count)
        folder = work / "bundle"
        shutil.copytree(self._bundle, folder)
        if mutation is not None:
            mutation.change(folder)
            signed(folder)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([str(folder), str(self._rows), str(work / "out")]) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer, work


@pytest.fixture(scope="module")
def server(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server, which ends with the tests."""
    server = Server(tmp_path_factory.mktemp("mutations"), bundle)
    yield server
    assert server.process.stdin is not None
    assert server.process.stdout is not None
    server.process.stdin.close()
    server.process.wait(timeout=60)
    server.process.stdout.close()


def problem_of(answer: dict[str, Any], work: Path) -> str:
    """Describe a violation; empty if the bundle was refused in one line or worked."""
    lines = answer["err"].splitlines()
    codes = answer["codes"]
    if codes is None:
        return f"ended by signal {answer['signal']}: {lines[-3:]}"
    if any(code not in (0, 1, 2) for code in codes) or len(lines) != sum(code != 0 for code in codes):
        return f"codes {codes}, {len(lines)} lines: {lines[-3:]}"
    if any(
        line.startswith("farsearch: unexpected ") or not 0 < len(line) <= MOST_LINE or not line.isprintable()
        for line in lines
    ):
        return f"not a plain line: {lines}"
    if answer["mib"] > MOST_MIB or answer["seconds"] > MOST_S:
        return f"{answer['mib']:.0f} MiB, {answer['seconds']:.1f} s"
    for code, out in zip(codes, ("out-board", "out"), strict=True):
        if (code == 0) != (work / out / "model.safetensors").is_file():
            return f"code {code}, and {out} is not as that says"
    return ""


def test_the_unchanged_bundle_works(server: Server) -> None:
    answer, work = server.use(None)
    assert answer["codes"] == [0, 0], answer["err"]
    assert problem_of(answer, work) == ""


@pytest.mark.parametrize("name", QUICK)
def test_targeted_changes_are_refused(server: Server, name: str) -> None:
    """By both commands, with exit code 2 and one line."""
    (mutation,) = (each for each in targeted_mutations() if each.name == name)
    answer, work = server.use(mutation)
    assert problem_of(answer, work) == ""
    assert answer["codes"] == [2, 2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_random_changes_are_refused_or_work(server: Server, bundle: Path) -> None:
    """At least 200: every targeted one, and a sample of all values of all JSON files."""
    leaves = leaf_mutations(bundle, 1)
    sample = random.Random(0).sample(leaves, 200)
    mutations = [*targeted_mutations(), *sample]
    assert len(mutations) >= 240
    problems = {}
    for mutation in mutations:
        answer, work = server.use(mutation)
        if problem := problem_of(answer, work):
            problems[mutation.name] = problem
        shutil.rmtree(work)
    assert problems == {}
