"""The verb that checks parametrizations: coordinates."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from study.cli.options import JsonOption
from study.cli.output import print_json, print_rows, say


def register(app: typer.Typer) -> None:
    """Add the verb to the program."""
    app.command(epilog="Example: `revstudy coordinates`, `revstudy coordinates --scheme completep --json`")(
        coordinates
    )


def coordinates(
    scheme: Annotated[
        list[str] | None,
        typer.Option("--scheme", metavar="NAME", help="standard, mup or completep; may be repeated."),
    ] = None,
    family: Annotated[
        list[str] | None,
        typer.Option("--family", metavar="NAME", help="revgpt (the default) or gpt; may be repeated."),
    ] = None,
    width: Annotated[
        list[int] | None,
        typer.Option("--width", metavar="FEATURES", help="A width, a multiple of 64; may be repeated."),
    ] = None,
    depth: Annotated[
        list[int] | None, typer.Option("--depth", metavar="BLOCKS", help="A depth; may be repeated.")
    ] = None,
    rate: Annotated[float, typer.Option(min=1e-8, help="Learning rate of AdamW at the base.")] = 0.001,
    steps: Annotated[int, typer.Option(min=2, help="Training steps.")] = 5,
    as_json: JsonOption = False,
) -> None:
    """Check whether activations stay of one size over width and depth (a coordinate check).

    Small language models of several sizes are trained for a few steps. Shown are the slopes of the logarithms
    of their activations, and of what training changes in them, over that of the size: 0 is flat.
    """
    from study.coordinates import FLAT, Check, coordinate_slopes

    asked: dict[str, Any] = {"parametrizations": scheme, "families": family, "widths": width, "depths": depth}
    check = Check(rate=rate, steps=steps, **{name: value for name, value in asked.items() if value})
    found = list(coordinate_slopes(check))
    if as_json:
        print_json(
            {"flat_within": FLAT, "rate": rate, "steps": steps, "slopes": [s.to_json() for s in found]}
        )
        return
    print_rows(
        [
            {
                "family": s.family,
                "parametrization": s.parametrization,
                "over": f"{s.over} {s.sizes[0]} to {s.sizes[-1]}",
                "stream": f"{s.stream:+.3f}",
                "stream change": f"{s.stream_change:+.3f}",
                "logits change": f"{s.logits_change:+.3f}",
                "": "flat" if s.flat else "",
            }
            for s in found
        ]
    )
    say(f"Slopes after {steps} steps at a rate of {rate:g}; flat is at most {FLAT} up or down.")
