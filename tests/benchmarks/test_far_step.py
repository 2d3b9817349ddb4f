"""The benchmark of training steps: variants, measurements and output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import Tensor, nn
from transformers import PreTrainedConfig

from benchmarks.far_step import main
from benchmarks.step_measures import Call, interleaved, product_seconds
from benchmarks.step_picture import step_figure
from benchmarks.step_report import Report
from benchmarks.step_variants import ABLATION, VARIANTS, Contender, RowSplit, contender
from farsearch.calibration.steps import example_batch
from farsearch.cost.pricer import Pricer
from farsearch.far.features import Batch
from farsearch.models.heads import Head
from farsearch.records import FarConfig, StepPlan
from tests.cost.reference import make_profile
from tests.far.saved import saved_bytes
from tests.tiny import make_config, make_model, make_vocabulary

NAMES = [
    "full", "full-ckpt", "far10-rows", "far10-modules", "far10-store", "far10-compact", "far10-recompute",
    "far10-emb", "far10-emb-attn", "far10-emb-attn-ckpt", "ffn-frozen", "bitfit", "lora8",
]  # fmt: skip
KEYS = {
    "variant", "batch", "seq", "time_ratio", "peak_ratio", "peak_mib", "saved_mib", "nongemm_ratio", "trainable",
}  # fmt: skip
LAYERS, HIDDEN, NEURONS, POSITIONS = 2, 32, 64, 128
"""Of ``tiny_distilbert``."""
ROWS, LENGTH = 8, 64


def run(*arguments: object) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def printed(tiny_distilbert: Path) -> str:
    """Return the JSON of a whole run on the tiny model."""
    done = run("--model", tiny_distilbert, "--batch-size", ROWS, "--seq", LENGTH, "--rounds", 1, "--json")
    assert done.exit_code == 0, done.stderr
    assert f"length {LENGTH}: round 1 of 1" in done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(printed: str) -> Report:
    """Return the same output as a record."""
    return Report.from_dict(json.loads(printed))


def contenders(names: Sequence[str] | None = None, **settings: Any) -> list[Contender]:
    """Return the variants of one small model, ablations included; only the named ones if names are given."""
    model, layout = make_model("distilbert", **settings)
    everyone = VARIANTS + ABLATION
    return [contender(variant, model, layout) for variant in everyone if names is None or variant.name in names]


def batch_of(one: Contender) -> Batch:
    """Return a batch of the benchmark."""
    assert isinstance(one.model.config, PreTrainedConfig)
    return example_batch(one.model.config.vocab_size, ROWS, LENGTH)


# Output.


def test_json_has_the_documented_structure(printed: str) -> None:
    """Every variant appears by name and in order; the ratios of full fine-tuning are 1."""
    data = json.loads(printed)
    assert data["schema_version"] == 1
    assert torch.__version__ in data["device"]
    assert [row["variant"] for row in data["results"]] == NAMES
    for row in data["results"]:
        assert set(row) >= KEYS
        assert (row["batch"], row["seq"]) == (ROWS, LENGTH)
        assert all(row[key] > 0 for key in KEYS - {"variant"})
    full = data["results"][0]
    assert full["time_ratio"] == full["peak_ratio"] == full["nongemm_ratio"] == full["gemm_ratio"] == 1


def test_far_variants_have_a_plan_and_rivals_have_none(report: Report) -> None:
    """The published variant has no plan either. The plan's policy is part of the variant's name."""
    plans = {result.variant: result.plan for result in report.results}
    assert {name for name, plan in plans.items() if plan} == {n for n in NAMES if "far10" in n} - {"far10-rows"}
    for policy in ("modules", "store", "compact", "recompute"):
        plan = plans[f"far10-{policy}"]
        assert plan is not None
        assert plan["feed_forward"] == policy
    assert [name for name, plan in plans.items() if plan and plan["checkpointing"]] == ["far10-emb-attn-ckpt"]


def test_recorded_run_can_be_shown_again(printed: str, report: Report, tmp_path: Path) -> None:
    """Expect the same JSON, a markdown table with a line per variant, and a picture of 1350 × 900 pixels."""
    file, picture = tmp_path / "run.json", tmp_path / "step.png"
    file.write_text(printed, encoding="utf-8")
    assert run("--from", file, "--json").stdout == printed
    lines = run("--from", file, "--markdown", "--picture", picture).stdout.splitlines()
    assert [line.split("|")[1].strip() for line in lines if line.startswith("| ")][2:] == NAMES
    head = picture.read_bytes()[:24]
    assert (int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")) == (1350, 900)
    table = run("--from", file).stdout
    assert all(f"{result.trainable:,}" in table for result in report.results)


def test_picture_labels_every_variant(report: Report) -> None:
    """Each variant has one marker at its two ratios and one label."""
    axes = step_figure(report).axes[0]
    drawn = [tuple(place) for family in axes.collections for place in np.asarray(family.get_offsets())]
    assert sorted(drawn) == sorted((result.peak_ratio, result.time_ratio) for result in report.results)
    assert sorted(text.get_text() for text in axes.texts if text.get_text() in NAMES) == sorted(NAMES)


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["--variants", "far20"], "'far20' is none of full, full-ckpt"),
        (["--seq", "128;32"], "'128;32' is no list of lengths"),
        (["--model", "./nowhere"], "the model folder './nowhere' does not exist"),
        (["--from", __file__], "is no JSON of this benchmark"),
    ],
)
def test_bad_options_are_refused_in_one_line(arguments: list[str], fragment: str) -> None:
    """The error names the problem and a suggestion, and nothing is measured."""
    done = run(*arguments)
    assert done.exit_code in (1, 2)
    assert fragment in done.stderr
    assert done.stdout == ""


# Variants.


def test_trainable_counts_follow_from_the_shapes_of_the_model(report: Report) -> None:
    """Counts are computed by hand: a tenth of 64 neurons or rows is 6, of 32 rows 3."""
    tables = (len(make_vocabulary()) + POSITIONS + 2) * HIDDEN
    attention, norms = 4 * (HIDDEN * HIDDEN + HIDDEN), 4 * HIDDEN
    block = 2 * HIDDEN * NEURONS + NEURONS + HIDDEN
    head = HIDDEN * HIDDEN + HIDDEN + 2 * HIDDEN + 2
    biases = LAYERS * (4 * HIDDEN + NEURONS + HIDDEN + 2 * HIDDEN) + HIDDEN
    learners = LAYERS * 6 * (2 * HIDDEN + 1)
    rows = LAYERS * (6 * (HIDDEN + 1) + 3 * (NEURONS + 1))
    rest = LAYERS * norms + head
    above = rest + LAYERS * attention
    expected = {
        "full": tables + above + LAYERS * block,
        "full-ckpt": tables + above + LAYERS * block,
        "far10-rows": tables + above + rows,
        **dict.fromkeys([f"far10-{how}" for how in ("modules", "store", "compact", "recompute")],
                        tables + above + learners),
        "far10-emb": above + learners,
        "far10-emb-attn": rest + learners,
        "far10-emb-attn-ckpt": rest + learners,
        "ffn-frozen": tables + above,
        "bitfit": biases + head,
        "lora8": LAYERS * 2 * 2 * 8 * HIDDEN + head,
    }  # fmt: skip
    assert {result.variant: result.trainable for result in report.results} == expected


def test_all_variants_compute_the_same_first_loss() -> None:
    """Without dropout the loss of the first batch is equal in the forward pass and in the following step."""
    everyone = contenders(dropout=0.0)
    losses = torch.stack([one.forward(batch_of(one)).detach() for one in everyone])
    torch.testing.assert_close(losses, losses[:1].expand_as(losses), rtol=1e-5, atol=1e-6)
    steps = torch.stack([one.step(batch_of(one)) for one in everyone])
    torch.testing.assert_close(steps, losses, rtol=1e-5, atol=1e-6)


def test_exact_plans_learn_the_same_weights_as_ordinary_modules() -> None:
    """Compare the weights after three steps with those of far10-modules."""
    everyone = contenders([f"far10-{how}" for how in ("modules", "store", "recompute")], dropout=0.0)
    states = []
    for one in everyone:
        for _ in range(3):
            one.step(batch_of(one))
        states.append(torch.cat([parameter.detach().flatten() for _, parameter in sorted(trained(one.model))]))
    for state in states[1:]:
        torch.testing.assert_close(state, states[0], rtol=1e-4, atol=1e-6)


def trained(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return the trained parameters by name."""
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_split_by_rows_equals_the_linear_map() -> None:
    """Values and gradients of the input and of the learner rows are equal; frozen rows have no gradient."""
    torch.manual_seed(3)
    linear, learners = nn.Linear(7, 11), [2, 3, 9]
    split = RowSplit(linear, learners)
    x, y = (torch.arange(28.0).view(2, 2, 7).requires_grad_() for _ in range(2))
    weights = torch.randn(2, 2, 11)
    torch.testing.assert_close(split(x), linear(y))
    (split(x) * weights).sum().backward()
    (linear(y) * weights).sum().backward()
    assert x.grad is not None
    assert linear.weight.grad is not None
    assert split.learner.weight.grad is not None
    torch.testing.assert_close(x.grad, y.grad)
    torch.testing.assert_close(split.learner.weight.grad, linear.weight.grad[learners])
    assert split.frozen.weight.grad is None
    assert split.frozen.bias.grad is None


# Measurements.


@pytest.mark.parametrize(("name", "frozen", "embeddings"), [("full", 0.0, False), ("far10-emb", 0.9, True)])
def test_measured_peak_equals_the_peak_of_the_cost_model(
    report: Report, name: str, frozen: float, embeddings: bool
) -> None:
    """Compare within 0.1 %, except for the states of the generator, with every allocation of a step on fake tensors.

    Each seeded dropout saves a state, 5 KB on a CPU, which is significant for a tiny model.
    """
    plan = next(variant.plan for variant in VARIANTS if variant.name == name)
    far = FarConfig((frozen,) * LAYERS, 1e-4, 1.0, frozen_embeddings=embeddings)
    price = Pricer(make_config("distilbert"), Head(), ROWS, LENGTH, make_profile()).price(far, plan or StepPlan())
    states = 0 if plan is None else (2 * LAYERS + 2) * torch.get_rng_state().nbytes / 2**20
    measured = next(result.peak_mib for result in report.results if result.variant == name)
    assert measured == pytest.approx(price.tensor_peak_mib, rel=1e-3, abs=states)


def test_saved_bytes_are_those_that_autograd_saves(report: Report) -> None:
    """Count the storages that autograd packs, without the last scalars.

    A checkpointed layer saves its input alone, ``[rows, length, hidden]``; full fine-tuning saves dozens of such
    tensors.
    """
    saved = {result.variant: result.saved_mib for result in report.results}
    (full,) = contenders(["full"])
    batch = batch_of(full)
    known = [*full.model.parameters(), *full.model.buffers(), *batch.inputs.values()]
    counted = saved_bytes(lambda: full.forward(batch), known)
    assert saved["full"] == pytest.approx(counted / 2**20, rel=0.01)
    inputs = LAYERS * ROWS * LENGTH * HIDDEN * 4 / 2**20
    for name in ("full-ckpt", "far10-emb-attn-ckpt"):
        assert inputs < saved[name] < inputs + 0.1 * saved["full"]


def test_split_by_rows_saves_as_much_as_full_fine_tuning(report: Report) -> None:
    """One learner row of the second map needs the whole hidden activation; reordering rows saves no copy."""
    saved = {result.variant: result.saved_mib for result in report.results}
    assert saved["far10-rows"] == pytest.approx(saved["full"], rel=0.01)


def test_products_are_distinguished_from_other_operations() -> None:
    """Linear maps, batched products and their gradients are products; a sum is not."""
    x = torch.randn(64, 64, requires_grad=True)
    assert product_seconds(lambda: x.exp().sum())[0] == 0
    for call in (lambda: x @ x, lambda: nn.functional.linear(x, x, x[0]), lambda: torch.bmm(x[None], x[None])):
        products, outside = product_seconds(call)
        assert products > 0
        assert outside > 0


def test_full_fine_tuning_is_measured_at_both_ends_of_each_round() -> None:
    """Its time is the mean of both; the other variants run in order, round by round."""
    calls: list[Call] = [lambda: "full", lambda: "a", lambda: "b"]
    order: list[object] = []

    def count(call: Call) -> list[float]:
        order.append(call())
        return [float(len(order)), 1.0]

    rounds: list[int] = []
    found = interleaved(calls, 2, count, rounds.append)
    assert order == ["full", "a", "b", "full"] * 2
    assert found[..., 0].tolist() == [[2.5, 2, 3], [6.5, 6, 7]]
    assert found.shape == (2, 3, 2)
    assert rounds == [1, 2]
