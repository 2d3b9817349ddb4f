"""``farsearch estimate``: costs of a configuration on a device, without weights and without a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from farsearch.api.estimate import sweep
from farsearch.models.config import load_config
from farsearch.models.families import layout_of
from farsearch.models.source import known_models, resolve_model
from farsearch.report.sweep import sweep_figure
from farsearch.study.space_files import list_spaces
from tests.journey import SPACE as TINY
from tests.journey import call

SMALL = "google/bert_uncased_L-2_H-128_A-2"
KEYS = [
    "schema_version", "device", "model", "tensor_peak_mib", "peak_memory_mib", "peak_memory_mib_range",
    "available_mib_range", "step_time_s", "wall_time_s", "wall_time_s_range", "fits", "breakdown",
]  # fmt: skip


def estimate(folder: Path, *options: object, model: str = SMALL, device: str = "jetson-nano") -> Any:
    """Return an estimate, parsed from JSON."""
    done = call(folder, "estimate", "--device", device, "--model", model, *options, "--json")
    assert (done.code, done.err) == (0, "")
    return done.json


def test_json_has_the_documented_shape(tmp_path: Path) -> None:
    """Ranges contain their values, breakdowns add up, and nothing is written."""
    cost = estimate(tmp_path, "--batch-size", 4, "--max-length", 16)
    assert set(KEYS) <= set(cost)
    assert (cost["schema_version"], cost["device"], cost["model"], cost["fits"]) == (1, "jetson-nano", SMALL, True)
    for key in ("peak_memory_mib", "wall_time_s"):
        low, high = cost[f"{key}_range"]
        assert low <= cost[key] <= high
    assert cost["tensor_peak_mib"] < cost["peak_memory_mib"]
    assert sum(cost["breakdown"]["memory_mib"].values()) == pytest.approx(cost["tensor_peak_mib"])
    assert sum(cost["breakdown"]["time_s"].values()) == pytest.approx(cost["wall_time_s"]) == cost["step_time_s"]
    assert not list(tmp_path.iterdir())


def test_the_engine_without_torch_takes_the_board_s_cpu(tmp_path: Path) -> None:
    """Of a GPU's profile the one of its CPU; weights in their file count beside the rest, but not in the low end."""
    base = ("--batch-size", 4, "--max-length", 16, "--frozen-fraction", 0.5, "--frozen-embeddings")
    cost, torch = estimate(tmp_path, *base, "--engine", "onnx"), estimate(tmp_path, *base)
    assert (cost["device"], cost["plan"]["engine"]) == ("jetson-nano-cpu", "onnx")
    assert cost["trainable"] == torch["trainable"]
    parts = cost["breakdown"]["memory_mib"]
    assert sum(parts.values()) == pytest.approx(cost["tensor_peak_mib"])
    low, high = cost["peak_memory_mib_range"]
    assert low < cost["peak_memory_mib"] - parts["mapped weights"]
    assert cost["peak_memory_mib"] < high < torch["peak_memory_mib"]
    assert sum(cost["breakdown"]["time_s"].values()) == pytest.approx(cost["wall_time_s"])
    accumulated = estimate(tmp_path, *base, "--engine", "onnx", "--micro-batch-size", 1)["breakdown"]["memory_mib"]
    assert accumulated["activations"] < parts["activations"]
    assert accumulated["trained weights, optimizer"] == pytest.approx(parts["trained weights, optimizer"] * 4 / 3)


@pytest.mark.parametrize(
    ("device", "options", "named"),
    [
        ("jetson-xavier-nx", (), "engines.onnx"),
        ("raspberry-pi-4", ("--prime-on", "device", "--priming-epochs", "0.1", "--samples", "40"), "priming"),
    ],
)
def test_what_the_engine_without_torch_has_not_is_refused(
    device: str, options: tuple[str, ...], named: str, tmp_path: Path
) -> None:
    done = call(tmp_path, "estimate", "--device", device, "--model", SMALL, "--engine", "onnx", *options)
    assert done.code == 2
    assert named in done.err


def test_freezing_more_costs_less(tmp_path: Path) -> None:
    """Each of the options; one fraction for all layers equals that fraction for each."""
    base = ("--batch-size", 4, "--max-length", 16)
    full = estimate(tmp_path, *base)
    for options in (
        ("--frozen-fraction", 0.9),
        ("--frozen-fraction", "0,0.9"),
        ("--frozen-embeddings",),
        ("--frozen-heads", 1),
        ("--frozen-bottom-layers", 1),
    ):
        cost = estimate(tmp_path, *base, *options)
        assert cost["trainable"] < full["trainable"]
        assert cost["wall_time_s"] < full["wall_time_s"]
    # in a model as small as this one the copies of a split attention take longer than its products
    assert estimate(tmp_path, *base, "--frozen-heads", "0.5,0")["trainable"] < full["trainable"]
    both = [estimate(tmp_path, *base, "--frozen-fraction", given) for given in ("0.5", "0.5,0.5")]
    assert both[0] == both[1]


def test_samples_price_the_steps_of_an_epoch(tmp_path: Path) -> None:
    """Every batch is priced at full length."""
    one = estimate(tmp_path, "--batch-size", 4, "--max-length", 16)
    epoch = estimate(tmp_path, "--batch-size", 4, "--max-length", 16, "--samples", 40)
    assert epoch["wall_time_s"] == pytest.approx(10 * one["wall_time_s"])
    assert epoch["step_time_s"] == one["step_time_s"]


def test_own_rows_give_head_sizes_and_the_time_of_an_epoch(tmp_path: Path, tiny_bert: Path) -> None:
    """As a search of them chooses; what was understood is one line, and each row has its own length."""
    lines = [f"row {i}{' and more' * (i % 5)},{'abc'[i % 3]}" for i in range(60)]
    (tmp_path / "rows.csv").write_text("\n".join(["text,label", *lines, ""]))
    words = ("estimate", "--device", "jetson-nano", "--model", tiny_bert, "--train", "rows.csv", "--json")
    done = call(tmp_path, *words)
    assert (done.code, done.err.count("\n")) == (0, 1)
    assert done.err.startswith("rows.csv: 48 training and 12 development rows; text: text; label: label; ")
    size, length = (int(re.findall(rf"{word} (\d+)", done.err)[0]) for word in ("batches of", "cut at"))
    own = done.json
    same = ("--batch-size", size, "--max-length", length, "--classes", 3, "--samples", 48)
    full = estimate(tmp_path, *same, model=str(tiny_bert))
    assert own["steps"] == full["steps"] == {"training": 48 / size}
    for key in ("tensor_peak_mib", "trainable", "step_time_s"):
        assert own[key] == full[key]
    assert own["wall_time_s"] < full["wall_time_s"]
    twice = call(tmp_path, *words, "--samples", 96).json
    assert twice["steps"] == {"training": 96 / size}
    assert twice["wall_time_s"] == pytest.approx(2 * own["wall_time_s"])


def test_own_rows_are_swept(tmp_path: Path, tiny_bert: Path) -> None:
    """The times of a space are those of an epoch of them."""
    (tmp_path / "tiny.yaml").write_text(TINY)
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"row {i},{'ab'[i % 2]}\n" for i in range(40)))
    words = ("estimate", "--device", "jetson-nano", "--model", tiny_bert, "--sweep", "--space", "tiny.yaml")
    done = call(tmp_path, *words, "--train", "rows.csv")
    assert done.code == 0, done.err
    assert "for one epoch of 32 rows" in done.out.splitlines()[0]


def test_text_has_the_figures_of_the_json(tmp_path: Path) -> None:
    words = ("estimate", "--device", "jetson-nano", "--model", SMALL, "--batch-size", 4, "--max-length", 16)
    done = call(tmp_path, *words)
    cost = estimate(tmp_path, "--batch-size", 4, "--max-length", 16)
    assert done.out.splitlines()[0] == f"{SMALL} on jetson-nano: fits (all figures are estimates)"
    assert f"{cost['peak_memory_mib']:.0f} MiB" in done.out
    assert f"{cost['trainable']:,} parameters" in done.out
    assert "plan      ordinary modules; 4 rows at once; AdamW" in done.out
    assert "matrix products" in done.out


def test_an_infeasible_model_is_reported_with_the_reason(tmp_path: Path) -> None:
    """Exit code 0, because the estimate succeeded."""
    done = call(
        tmp_path, "estimate", "--device", "raspberry-pi-4-2gb", "--model", "google/bert_uncased_L-4_H-512_A-8",
        "--batch-size", 64, "--max-length", 128,
    )  # fmt: skip
    assert done.code == 0
    assert "DOES NOT FIT" in done.out
    assert "memory: up to " in done.out


def test_well_known_models_need_no_network() -> None:
    """Their configurations are in the package, and their families are supported."""
    for name in known_models():
        config = load_config(resolve_model(name), with_known=True)
        assert len(layout_of(config).layers) == config.num_hidden_layers


def test_priming_on_the_device_is_a_phase(tmp_path: Path) -> None:
    """The peak is the larger of both phases, the time their sum."""
    job = ("--batch-size", 4, "--max-length", 16, "--samples", 40, "--frozen-fraction", 0.9)
    cost = estimate(tmp_path, *job, "--prime-on", "device", "--priming-epochs", 0.5)
    assert cost["steps"] == {"priming": 5, "training": 10}
    phases = cost["phases"]
    assert cost["tensor_peak_mib"] == pytest.approx(max(phase["tensor_peak_mib"] for phase in phases.values()))
    assert cost["wall_time_s"] == pytest.approx(sum(phase["wall_time_s"] for phase in phases.values()))
    alone = estimate(tmp_path, *job)
    assert alone["steps"] == {"training": 10}
    for key in ("tensor_peak_mib", "wall_time_s", "breakdown"):
        assert phases["training"][key] == alone[key]
    words = call(tmp_path, "estimate", "--device", "jetson-nano", "--model", SMALL, *job, "--prime-on", "device",
                 "--priming-epochs", 0.5).out  # fmt: skip
    assert "for 5 steps" in words
    assert "for 10 steps" in words


def test_suggested_changes_make_it_fit(tmp_path: Path) -> None:
    """The estimate with the suggested options equals the price in the suggestion; the last is the other engine."""
    model, base = "google/bert_uncased_L-4_H-512_A-8", ("--batch-size", 64, "--max-length", 128)
    cost = estimate(tmp_path, *base, model=model, device="raspberry-pi-4-2gb")
    assert cost["fits"] is False
    assert cost["peak_memory_mib_range"][1] > cost["available_mib_range"][0]
    assert [fix["learns_the_same"] for fix in cost["fixes"]] == [True, False, True]
    assert "--engine onnx" in cost["fixes"][-1]["options"]
    for fix in cost["fixes"]:
        fixed = estimate(tmp_path, *base, *fix["options"].split(), model=model, device="raspberry-pi-4-2gb")
        assert fixed["fits"]
        for key in ("peak_memory_mib", "wall_time_s"):
            assert fixed[key] == fix[key]
    assert cost["fitting_space"]["space"] in list_spaces()
    assert 0.5 <= cost["fitting_space"]["share_that_fits"] <= 1
    words = call(tmp_path, "estimate", "--device", "raspberry-pi-4-2gb", "--model", model, *base).out
    assert f"would fit a search: run --space {cost['fitting_space']['space']}, " in words


def test_the_largest_batch_fits_and_one_row_more_does_not(tmp_path: Path) -> None:
    """Under a plan's goal too; its price is that of this batch. An epoch of fewer rows bounds it."""
    job, where = ("--max-length", 64), {"device": "raspberry-pi-4-2gb"}
    found = []
    for options in ((), ("--plan", "memory")):
        largest = estimate(tmp_path, *job, *options, "--largest-batch", **where)
        found.append(largest["batch_size"])
        assert largest["fits"]
        assert largest == estimate(tmp_path, *job, *options, "--batch-size", found[-1], **where)
        assert not estimate(tmp_path, *job, *options, "--batch-size", found[-1] + 1, **where)["fits"]
    assert found[0] < found[1]
    assert estimate(tmp_path, *job, "--samples", 12, "--largest-batch", **where)["batch_size"] == 12
    words = call(tmp_path, "estimate", "--device", "raspberry-pi-4-2gb", "--model", SMALL, *job, "--largest-batch").out
    assert f"  batch     {found[0]:,} rows at most; " in words


def test_where_not_even_a_row_fits_the_price_is_that_of_a_row(tmp_path: Path) -> None:
    where = {"device": "raspberry-pi-zero-2-w"}
    largest = estimate(tmp_path, "--max-length", 16, "--largest-batch", **where)
    assert (largest["batch_size"], largest["fits"]) == (1, False)
    assert largest == estimate(tmp_path, "--max-length", 16, "--batch-size", 1, **where)


def test_methods_are_priced_as_the_baselines_of_a_search(tmp_path: Path) -> None:
    """Those that are configurations equal these; LoRA trains its adapters and the head, two matrices a map."""
    job = ("--batch-size", 4, "--max-length", 16)
    for method, same in (("full", "0"), ("ffn-frozen", "1"), ("far10", "0.9")):
        named, frozen = (estimate(tmp_path, *job, *o) for o in (("--method", method), ("--frozen-fraction", same)))
        assert named == {**frozen, "method": method}
    hidden, layers, head = 128, 2, 2 * 128 + 2
    for rank in (1, 8):
        trained = estimate(tmp_path, *job, "--method", f"lora{rank}")["trainable"]
        assert trained == layers * 2 * 2 * rank * hidden + head


def test_the_largest_batch_is_suggested_for_a_method_that_does_not_fit(tmp_path: Path) -> None:
    """One row more of LoRA does not fit; it is more than of full fine-tuning."""
    job, where = ("--max-length", 64, "--method", "lora8"), {"device": "raspberry-pi-4-2gb"}
    cost = estimate(tmp_path, *job, "--batch-size", 5000, **where)
    ((option, rows),) = [fix["options"].split() for fix in cost["fixes"]]
    assert option == "--batch-size"
    fitting, larger = (estimate(tmp_path, *job, "--batch-size", int(rows) + more, **where) for more in (0, 1))
    assert (fitting["fits"], larger["fits"]) == (True, False)
    assert fitting["peak_memory_mib"] == cost["fixes"][0]["peak_memory_mib"]
    full = estimate(tmp_path, *job[:2], "--method", "full", "--batch-size", rows, **where)
    assert not full["fits"]


def test_a_sweep_counts_configurations_and_draws_them(tmp_path: Path) -> None:
    """JSON, text, and a picture of 1200 × 750 pixels, which is the only file."""
    job = ("estimate", "--device", "jetson-nano", "--model", SMALL, "--batch-size", 2, "--max-length", 16, "--sweep")
    done = call(tmp_path, *job, "--space", "uniform", "--json")
    assert done.code == 0
    found = done.json
    assert not list(tmp_path.iterdir())
    # one for each of the fractions
    assert (found["configurations"], found["fitting"], found["space"]) == (21, 21, "uniform")
    assert [plan["share_that_fits"] for plan in found["plans"]] == [1.0] * len(found["plans"])
    for plan in found["plans"]:
        for key in ("peak_memory_mib", "wall_time_s"):
            assert plan[key]["least"] <= plan[key]["median"] <= plan[key]["most"]
        # a few frozen neurons take zero padding and buffers of their own
        assert plan["peak_memory_mib"]["most"] <= 1.001 * plan["full_fine_tuning"]["peak_memory_mib"]
    least = min(plan["peak_memory_mib"]["least"] for plan in found["plans"])
    assert found["front"][0]["peak_memory_mib"] == least
    assert found["most_trained"][-1]["frozen"]["frozen_fractions"] == [0.0, 0.0]
    words = call(tmp_path, *job, "--space", "uniform", "--png", "sweep.png")
    assert words.code == 0
    first = words.out.splitlines()[0]
    assert f"21 of 21 configurations fit under a plan; least memory {least:,.0f} MiB" in first
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.png"]
    with Image.open(tmp_path / "sweep.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (1200, 750))


def test_the_legend_of_a_sweep_is_inside_its_picture() -> None:
    """Below the axis and its label, however many plans there are and however long their names."""
    swept = sweep("jetson-nano", SMALL, batch_size=4, max_length=16, configurations=10)
    figure = sweep_figure(swept, "a space", "one step")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    legend, label = figure.legends[0].get_window_extent(), figure.axes[0].xaxis.label.get_window_extent()
    assert len(figure.legends[0].get_texts()) > 9
    assert figure.bbox.x0 < legend.x0 < legend.x1 < figure.bbox.x1
    assert figure.bbox.y0 < legend.y0 < legend.y1 < label.y0


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"device": "jetson-nono"}, 2, "did you mean 'jetson-nano'?"),
        ({"model": "nobody/nothing"}, 5, "'nobody/nothing'"),
        ({"model": "./nosuch"}, 2, "'./nosuch' does not exist"),
        ({"frozen-fraction": "1.5"}, 2, "1.5"),
        ({"frozen-fraction": "nan"}, 2, "nan"),
        ({"frozen-fraction": "half"}, 2, "'half' is not a fraction"),
        ({"frozen-fraction": "0.1,0.2,0.3"}, 2, "has 3 values"),
        ({"frozen-bottom-layers": "3"}, 2, "the model has 2 layers"),
        ({"max-length": "513"}, 2, "takes at most 512 tokens"),
        ({"batch-size": "0"}, 2, "0 is not in the range"),
        ({"micro-batch-size": "16"}, 2, "the micro-batch has 16 rows and the batch 16"),
        ({"method": "lora"}, 2, "did you mean 'lora8'?"),
        ({"method": "lora0"}, 2, "the method 'lora0' is unknown; give one of full, far10, "),
        ({"method": "full", "frozen-fraction": "0"}, 2, "--method decides what is trained, and so does"),
        ({"method": "lora8", "plan": "time"}, 2, "--plan is for FAR; LoRA r=8 is priced as it is usually run"),
        ({"method": "lora8", "engine": "onnx", "device": "raspberry-pi-4"}, 2, "--engine is for FAR; LoRA r=8"),
        ({"largest-batch": None, "batch-size": "4"}, 2, "--batch-size is what --largest-batch finds"),
        ({"largest-batch": None, "micro-batch-size": "4"}, 2, "--micro-batch-size bounds the memory of any batch"),
        ({"sweep": None, "largest-batch": None}, 2, "--largest-batch is one configuration's"),
        ({"text-column": "body"}, 2, "--text-column is for --train; add it"),
        ({"train": "a.csv", "classes": "3"}, 2, "--classes is the number of labels in --train"),
        ({"train": "a.csv"}, 5, "a.csv' can't be read"),
        ({"train": "sst2"}, 2, "which is no file of rows"),
        ({"space": "wide"}, 2, "--space is for --sweep; add it"),
        ({"png": "a.png"}, 2, "--png is for --sweep; add it"),
        ({"prime-on": "device"}, 2, "add --priming-epochs"),
        ({"priming-epochs": "0.1"}, 2, "add --prime-on device"),
        ({"priming-epochs": "0.1", "prime-on": "device"}, 2, "give --samples"),
        ({"sweep": None, "frozen-fraction": "0.5"}, 2, "--frozen-fraction is one configuration's"),
        ({"sweep": None, "frozen-embeddings": None}, 2, "--frozen-embeddings is one configuration's"),
        ({"sweep": None, "plan": "memory"}, 2, "--plan is one configuration's"),
        ({"sweep": None, "prime-on": "device"}, 2, "give --samples"),
        ({"sweep": None, "space": "papr"}, 2, "did you mean 'paper'?"),
        ({"sweep": None, "space": "deep.yaml"}, 2, "frozen_bottom_layers is 5; the model has 2 layers"),
    ],
)
def test_invalid_options_are_refused_in_one_line(
    tmp_path: Path, options: dict[str, str | None], code: int, message: str
) -> None:
    (tmp_path / "deep.yaml").write_text(TINY.replace("frozen_bottom_layers: 0", "frozen_bottom_layers: 5"))
    values = {"device": "jetson-nano", "model": SMALL, **options}
    words = [[f"--{name}", *([] if value is None else [value])] for name, value in values.items()]
    done = call(tmp_path, "estimate", *(word for option in words for word in option))
    assert (done.code, done.out) == (code, "")
    assert done.err.count("\n") == 1
    assert message in done.err


def test_the_better_engine_of_any_is_taken_and_named_where_torch_does_not_fit(tmp_path: Path) -> None:
    """With both engines priced, the plan for least memory is the one without torch; without, it is suggested."""
    base = ("--batch-size", 4, "--max-length", 16, "--frozen-fraction", 0.5)
    best = estimate(tmp_path, *base, "--engine", "any", "--plan", "memory", device="raspberry-pi-4")
    assert (best["device"], best["plan"]["engine"]) == ("raspberry-pi-4", "onnx")
    done = call(tmp_path, "estimate", "--device", "raspberry-pi-zero-2-w", "--model", SMALL, *base, "--json")
    assert not done.json["fits"]
    assert any("--engine onnx" in change["options"] for change in done.json["fixes"])
