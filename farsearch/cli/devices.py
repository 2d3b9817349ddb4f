"""``devices``: show profiles, calibrate this machine, import a board's results, compare with real steps."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from farsearch.api import HOME
from farsearch.cli.boards import devices_list, devices_rank
from farsearch.cli.devices_submit import devices_submit
from farsearch.cli.options import AboveZero, json_option
from farsearch.cli.terminal import print_rows
from farsearch.far.display import shown
from farsearch.records.config import Engine

if TYPE_CHECKING:
    from farsearch.calibration.check import StepCheck
    from farsearch.devices import Profile

__all__ = ["COMMANDS"]

_USER_PROFILES = HOME / "devices"


def _note(text: str) -> None:
    click.echo(text, err=True)


@click.group()
def devices() -> None:
    """List, rank, show and calibrate device profiles: memory and speed of a device, with their sources.

    Your own profile is a file .farsearch/devices/NAME.toml, and takes precedence over a shipped one of that name.
    """


devices.add_command(devices_list)
devices.add_command(devices_rank)
devices.add_command(devices_submit)


@devices.command("show")
@click.argument("name")
def devices_show(name: str) -> None:
    """Show a profile with the source of each value.

    \b
    Example:
      farsearch devices show jetson-nano
    """
    from farsearch.calibration.local import find_profile
    from farsearch.cli.details import profile_rows

    profile = find_profile(name, HOME, _note)
    click.echo(f"{profile.name}: {profile.title} ({profile.basis})\n{profile.note}")
    click.echo(f"engines of the training step: {', '.join(profile.engines)}")
    print_rows(profile_rows(profile), None, "")
    own = None if profile.onnx is None else profile.onnx.rates
    for engine, rates in (("torch", profile.rates), ("onnx", own)):
        if rates is not None:
            conditions = ", ".join(f"{key} {value}" for key, value in rates.conditions.items())
            kinds = len(rates.products) + len(rates.streams)
            click.echo(f"measured rates of {kinds} kinds of operations with {engine}: {conditions}")


@devices.command("calibrate")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Profile to write, NAME.toml; without it, the profile 'local' of this folder is measured again.",
)
@click.option(
    "--script",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure nothing; write a script that measures a board with Python 3.6, and torch 1.10 or onnxruntime 1.10.",
)
@click.option("--seconds", type=AboveZero(), default=200.0, show_default=True, metavar="S", help="Time to measure.")
@click.option("--engine", type=click.Choice(list(get_args(Engine))), default="torch", show_default=True,
              help="What executes the step. onnx needs farsearch[onnx] here, and no torch on the board.")  # fmt: skip
def devices_calibrate(out: Path | None, script: Path | None, seconds: float, engine: Engine) -> None:
    """Measure this machine, in at most 5 minutes. Leave it idle meanwhile.

    A profile has figures of torch, and may have those of the engine onnx too: --engine onnx adds them to the profile
    'local', or writes both to --out.

    \b
    Examples:
      farsearch devices calibrate                          # for --device local
      farsearch devices calibrate --engine onnx            # its figures of the engine without torch
      farsearch devices calibrate --out my-board.toml      # for --device my-board.toml
      farsearch devices calibrate --script calibrate.py    # for a board without farsearch:
      #   on the board:      python3 calibrate.py --out result.json
      #   on this machine:   farsearch devices import result.json --name my-board
      farsearch devices calibrate --engine onnx --script calibrate.py     # needs numpy and onnxruntime there
      #   on this machine:   farsearch devices import result.json --name my-board --like raspberry-pi-4
    """
    from farsearch.devices.profile import write_profile

    if engine == "onnx":
        from farsearch.bundle.onnx import check_packages

        check_packages()
    if script is not None:
        if out is not None:
            raise click.UsageError("--out and --script: give one of them")
        _write_script(script, engine)
        return
    from farsearch.calibration.local import calibrated_here, local_path
    from farsearch.files import check_new_file

    if out is not None:
        check_new_file(out, ".toml")
    name = "local" if out is None else _profile_name(out.stem)
    cache = HOME / "cache" / "devices"
    path = local_path(cache) if out is None else out
    profile = calibrated_here(cache, name, engine, seconds, _note)
    write_profile(profile, path)
    _summary(profile, path, "local" if out is None else str(out), engine)


def _profile_name(name: str) -> str:
    from farsearch.devices.profile import check_name
    from farsearch.devices.registry import LOCAL
    from farsearch.errors import BadInput

    check_name(name)
    if name == LOCAL:
        raise BadInput(f"the name {shown(LOCAL)} stands for the machine that a command runs on; give another name")
    return name


def _write_script(path: Path, engine: Engine) -> None:
    from farsearch.calibration.script import board_script
    from farsearch.files import check_new_file, write_text

    check_new_file(path, ".py")
    write_text(path, board_script(engine))
    click.echo(f"wrote {path}; on the board: python3 {path.name} --out result.json, about 4 minutes")


@devices.command("import")
@click.argument("result", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--name", metavar="NAME", help="Name of the profile.  [default: the result's file name]")
@click.option("--like", metavar="NAME", help="Profile of the same board and mode, for its power and all that the "
              "result has not; or the profile that a bundle was made for, where its name is unknown here.")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace your own profile of this name.")
def devices_import(result: Path, name: str | None, like: str | None, force: bool) -> None:
    """Create a profile from the results of the calibration script on a board, or of a bundle that ran there.

    A bundle's measurement.json scales the times of the profile that the bundle was made for by one factor, and replaces
    the memory of the process by the measured one. A result of the engine onnx has no figures of torch, and needs
    --like: a shipped profile of the board, or your own from a result of torch.

    \b
    Examples:
      farsearch devices import my-board.json
      farsearch devices import tuned/measurement.json --name my-nano
      farsearch devices import result.json --name my-nano --like jetson-nano
      farsearch devices import onnx.json --name my-nano --like my-nano --force     # the figures of both engines
    """
    import dataclasses

    from farsearch.calibration.board import is_measurement
    from farsearch.devices import list_profiles, load_profile
    from farsearch.devices.contributed import is_unlike
    from farsearch.devices.profile import write_profile
    from farsearch.errors import BadInput
    from farsearch.study.names import usable_name

    profile_name = _profile_name(name or usable_name(result.stem).lower().replace("+", "-"))
    path = _USER_PROFILES / f"{profile_name}.toml"
    if path.exists() and not force:
        raise BadInput(f"{path} exists; give another --name, or --force to replace it")
    from_result = _from_bundle if is_measurement(result) else _from_calibration
    profile, engine = from_result(result, profile_name, like)
    if like is not None:
        other = load_profile(like, _USER_PROFILES)
        onnx = profile.onnx or (other.onnx if profile.kind == "cpu" else None)
        profile = dataclasses.replace(profile, power_w=other.power_w, power_mode=other.power_mode, onnx=onnx)
    write_profile(profile, path)
    _summary(profile, path, profile_name, engine)
    named = next((one for one in (like, profile_name) if one in list_profiles()), None)
    if named is not None and is_unlike(profile, load_profile(named)):
        _note(f"{profile.title} is unlike {named}, {load_profile(named).title}: was the right machine measured?")


def _from_calibration(result: Path, name: str, like: str | None) -> tuple[Profile, Engine]:
    import dataclasses

    from farsearch.calibration.fit import fit_engine, fit_profile
    from farsearch.calibration.local import find_profile
    from farsearch.calibration.result import read_result
    from farsearch.errors import BadInput

    measured = read_result(result)
    if measured.engine == "torch":
        return fit_profile(measured, name), "torch"
    if like is None:
        raise BadInput(
            f"{result} has figures of the engine 'onnx' alone; give a profile of the same board with --like, such as "
            "raspberry-pi-4, for all others"
        )
    profile = fit_engine(measured, find_profile(like, HOME, _note))
    return dataclasses.replace(profile, name=name), "onnx"


def _from_bundle(result: Path, name: str, like: str | None) -> tuple[Profile, Engine]:
    from farsearch.calibration.board import adjusted, read_measurement
    from farsearch.calibration.local import find_profile

    file = read_measurement(result)
    engine: Engine = "onnx" if file.without_torch else "torch"
    return adjusted(find_profile(like or file.device, HOME, _note), file, name), engine


def _summary(profile: Profile, path: Path, device: str, engine: Engine) -> None:
    profile = profile.for_engine(engine)
    low, high = profile.available_mib
    factor = profile.time_factor
    click.echo(f"wrote {path}: {profile.title}")
    click.echo(
        f"  products     {profile.gemm_gflops.value:.0f} GFLOP/s, of the attention {profile.bmm_gflops.value:.0f}"
    )
    click.echo(
        f"  streams      {profile.bandwidth_gbs.value:.1f} GB/s; an operation costs {profile.launch_us.value:.1f} us"
    )
    click.echo(f"  memory       {low:,.0f} to {high:,.0f} MiB for a process")
    click.echo(f"  times        {factor.low / factor.value:.2f} to {factor.high / factor.value:.2f} of the prediction")
    with_engine = "" if engine == "torch" else f" --engine {engine}"
    click.echo(f"use it with --device {device}{with_engine}")


@devices.command("check")
@click.argument("name")
@click.option("--model", default="minilm", show_default=True, metavar="NAME", help="Its shapes; weights are random.")
@click.option("--engine", type=click.Choice(list(get_args(Engine))), default="torch", show_default=True,
              help="What executes the steps. onnx needs farsearch[onnx].")  # fmt: skip
@json_option
def devices_check(name: str, model: str, engine: Engine, as_json: bool) -> None:
    """Run training steps on this machine and compare them with a profile's predictions.

    The profile must be of this machine: 'local', or one that was calibrated here.

    \b
    Examples:
      farsearch devices check local
      farsearch devices check local --engine onnx
      farsearch devices check my-board.toml --model distilbert-base-uncased
    """
    # torch's profiler, which counts the memory of a step, prints its start and stop; read when torch is first imported
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from farsearch.calibration.check import mean_errors
    from farsearch.calibration.local import find_engine_profile, find_profile
    from farsearch.models.config import load_config
    from farsearch.models.source import resolve_model

    config = load_config(resolve_model(model), with_known=True)
    profile = find_engine_profile(find_profile(name, HOME, _note), engine, HOME)
    _note_other_machine(profile, engine)
    checks = _checked(config, profile, engine)
    memory, seconds = mean_errors(checks)
    if as_json:
        click.echo(json.dumps(_checks_json(profile.name, model, checks, memory, seconds), indent=1))
        return
    what = "tensors and seconds of a step" if engine == "torch" else "anonymous memory and seconds of a compiled step"
    title = f"{model} on {profile.name}, {what}"
    print_rows([_check_row(check) for check in checks], title, "")
    inside = sum(check.within for check in checks)
    click.echo(
        f"mean error: memory {memory:.2%}, time {seconds:.1%}; {inside} of {len(checks)} times within their range"
    )


def _note_other_machine(profile: Profile, engine: Engine) -> None:
    """Report if the profile is not of this machine."""
    from farsearch.calibration.local import this_machine

    if profile.rates is None:
        _note(f"{profile.name} is derived from data sheets; on another device than this one, times are meaningless")
        return
    measured_with, here = profile.rates.conditions, this_machine().conditions()
    keys = ("processor", "threads", "torch") if engine == "torch" else ("processor",)
    for key in keys:
        if measured_with.get(key, here[key]) != here[key]:
            _note(f"{profile.name} was measured with {key} {measured_with[key]}, this machine has {here[key]}")
            return


def _checked(config: Any, profile: Profile, engine: Engine) -> list[StepCheck]:
    if engine == "onnx":
        from farsearch.bundle.onnx import check_packages

        check_packages()
        from farsearch.calibration.engine_check import check_compiled_steps

        return list(check_compiled_steps(config, profile, _note))
    from farsearch.calibration.check import check_cases, check_step
    from farsearch.models.families import layout_of

    cases = check_cases(profile, layout_of(config))
    checks = []
    for i, case in enumerate(cases):
        _note(f"step {i + 1} of {len(cases)}: {case.batch_size} x {case.length}, {case.title}")
        checks.append(check_step(config, case, profile))
    return checks


def _check_row(check: StepCheck) -> dict[str, str]:
    from farsearch.formatting import human_memory

    return {
        "batch": f"{check.case.batch_size} x {check.case.length}",
        "what": check.case.title,
        "predicted": human_memory(check.predicted_mib),
        "measured": human_memory(check.measured_mib),
        "off": f"{check.predicted_mib / check.measured_mib - 1:+.2%}",
        "predicted s": f"{check.predicted_s:.3f}",
        "range s": f"{check.range_s[0]:.3f} to {check.range_s[1]:.3f}",
        "measured s": f"{check.measured_s:.3f}",
        "time off": f"{check.predicted_s / check.measured_s - 1:+.0%}",
    }


def _checks_json(device: str, model: str, checks: list[StepCheck], memory: float, seconds: float) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "device": device,
        "model": model,
        "memory_mean_error": memory,
        "time_mean_error": seconds,
        "cases": [
            {
                "batch_size": check.case.batch_size,
                "length": check.case.length,
                "config": check.case.config.to_dict(),
                "plan": check.case.plan.to_dict(),
                "predicted_mib": check.predicted_mib,
                "measured_mib": check.measured_mib,
                "predicted_s": check.predicted_s,
                "range_s": check.range_s,
                "measured_s": check.measured_s,
            }
            for check in checks
        ],
    }


COMMANDS = (devices,)
