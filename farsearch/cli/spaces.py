"""``spaces``: list, show and check search spaces."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from farsearch.study.sizes import Size
    from farsearch.study.space import Space

__all__ = ["COMMANDS"]


_for_model = click.option(
    "--model", metavar="NAME", help="In numbers for this model: a well-known checkpoint, a folder, or a hub name."
)


@click.group()
def spaces() -> None:
    """List, show and check search spaces: the searched parameters and their ranges."""


@spaces.command("list")
@_for_model
def spaces_list(model: str | None) -> None:
    """List the spaces for --space.

    \b
    Example:
      farsearch spaces list --model bert-base-uncased
    """
    from farsearch.study.space import load_space
    from farsearch.study.space_files import list_spaces

    sized = None if model is None else _sized(model)
    if sized is not None:
        click.echo(sized.text)
    for name in list_spaces():
        space = load_space(name)
        click.echo(f"{name:10} {space.title}")
        if sized is not None:
            click.echo(f"{'':10} {_searched(space.for_model(sized.layers, sized.size), sized.layers)}")


@spaces.command("show")
@click.argument("name")
@_for_model
def spaces_show(name: str, model: str | None) -> None:
    """Print a space as YAML, as a start for your own.

    \b
    Examples:
      farsearch spaces show default > mine.yaml
      farsearch spaces show default --model bert-base-uncased
    """
    from farsearch.study.space import load_space
    from farsearch.study.space_files import space_text

    if model is None:
        click.echo(space_text(name), nl=False)
        return
    sized = _sized(model)
    space = load_space(name).for_model(sized.layers, sized.size)
    click.echo(f"# {sized.text}\n# {_searched(space, sized.layers)}\n{space.to_yaml()}", nl=False)


@spaces.command("check")
@click.argument("path")
@_for_model
def spaces_check(path: str, model: str | None) -> None:
    """Check a space file.

    \b
    Example:
      farsearch spaces check mine.yaml
    """
    from farsearch.study.space import load_space

    space = load_space(path)
    if model is None:
        click.echo(f"{path}: right, {len(space.search)} searched and {len(space.fixed)} fixed parameters")
        return
    sized = _sized(model)
    space = space.for_model(sized.layers, sized.size)
    click.echo(f"{path}: right for {sized.text}\n{_searched(space, sized.layers)}")
    for start in space.start.keys() - space.starts(sized.layers).keys():
        click.echo(f"not tried first, for it is not in the space: {start}")


class _Sized(NamedTuple):
    """The size of a model."""

    layers: int
    size: Size
    text: str


def _sized(model: str) -> _Sized:
    from farsearch.models.config import load_config
    from farsearch.models.count import layer_parameters
    from farsearch.models.families import layout_of
    from farsearch.models.source import resolve_model
    from farsearch.study.sizes import size_of

    config = load_config(resolve_model(model), with_known=True)
    layers, parameters = len(layout_of(config).layers), layer_parameters(config)
    size = size_of(parameters)
    text = (
        f"{model}: size {size.name}, {parameters / 1e6:.1f} M parameters in {layers} layers; "
        f"batch {size.batch_size}, at most {size.max_length} tokens"
    )
    return _Sized(layers, size, text)


def _searched(space: Space, layers: int) -> str:
    """Describe the searched parameters, the layers that share frozen fractions or heads, and the learning rates."""
    count = len(space.distributions(layers))
    parts = [f"{count} parameter{'s' * (count != 1)}"]
    for key, title in (("frozen_fraction", "fractions"), ("frozen_heads", "heads")):
        groups = ", ".join(
            f"{group[0]}-{group[-1]}" if len(group) > 1 else str(group[0]) for group in space.groups(layers, key)
        )
        parts += [f"frozen {title} of the layers {groups}"] * (key in space.search)
    rate = space.search.get("learning_rate", {})
    if "low" in rate:
        parts.append(f"learning rates {rate['low']:g} to {rate['high']:g}")
    return "; ".join(parts)


COMMANDS = (spaces,)
