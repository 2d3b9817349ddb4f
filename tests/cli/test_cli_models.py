"""``farsearch models``: the list of well-known models."""

from __future__ import annotations

from pathlib import Path

from farsearch.models.source import known_models
from tests.journey import call


def test_the_list_has_sizes_and_families(tmp_path: Path) -> None:
    """Parameters as published, with a head of two classes."""
    done = call(tmp_path, "models", "list", "--json")
    assert (done.code, done.err) == (0, "")
    models = {each["name"]: each for each in done.json["models"]}
    assert [*models] == [*known_models()]
    bert = models["bert-base-uncased"]
    assert (bert["family"], bert["layers"], bert["parameters"]) == ("bert", 12, 109_483_778)


def test_the_table_has_a_line_for_each_model(tmp_path: Path) -> None:
    done = call(tmp_path, "models", "list")
    head, _, *lines = done.out.splitlines()
    assert head.split() == ["model", "family", "layers", "parameters"]
    assert [line.split()[0] for line in lines] == [*known_models()]
