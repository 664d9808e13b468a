"""How long does a page that only looks take on Atlas, when nobody has looked at the prompt before?

python -m benchmarks.look            # seconds; prints, writes nothing
python -m benchmarks.look --publish  # also writes docs/benchmarks.md and docs/benchmarks/look.json
"""

import statistics
import time
from dataclasses import dataclass
from typing import Any

import tyro

from benchmarks import report
from mi_core import analyses as lantern
from mi_core import load_model
from mi_core.model.model import LoadedModel

PROMPT = "The Louvre Museum is located in the city of"
LOOKS: dict[str, tuple[str, Any]] = {
    "next token and surprise": ("next_token", lantern.NextTokenInputs(PROMPT)),
    "attention, weights": ("attention_patterns", lantern.AttentionInputs(PROMPT)),
    "attention, contributions": ("attention_patterns", lantern.AttentionInputs(PROMPT, show="contribution")),
    "logit lens": ("logit_lens", lantern.LogitLensInputs(PROMPT)),
    "neurons of the prompt": ("neuron_prompt", lantern.NeuronPromptInputs(PROMPT)),
    "attribution": ("attribution", lantern.AttributionInputs(PROMPT, split_heads=("L4H0",))),
    "all weights": ("inspect_model", lantern.InspectInputs()),
    "copying scores": ("copying_scores", lantern.CopyingScoresInputs()),
    "composition scores": ("composition", lantern.CompositionInputs()),
    "head types": ("head_scores", lantern.HeadScoresInputs()),
}


@dataclass(frozen=True)
class Options:
    """What to run.

    Attributes:
        repeats: timed runs of each analysis.
        publish: write the figures into docs/.
    """

    repeats: int = 9
    publish: bool = False


def median_seconds(model: LoadedModel, name: str, inputs: Any, repeats: int) -> float:
    """Median time of an analysis that shares its forward pass with nobody."""
    function, seconds = getattr(lantern, name), []
    function(model, inputs)
    for _ in range(repeats):
        model.observations.clear()
        started = time.perf_counter()
        function(model, inputs)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def main(options: Options) -> None:
    """Measure, print, and publish when asked to."""
    where, model = report.machine("cpu"), load_model("atlas")
    runs = {label: median_seconds(model, *look, options.repeats) for label, look in LOOKS.items()}
    lines = [
        "| on Atlas, one short prompt | median of the analysis, its forward pass included |",
        "|---|---:|",
    ]
    lines += [f"| {label} | {1000 * seconds:.0f} ms |" for label, seconds in runs.items()]
    text = report.heading("Pages that look", where) + "\n\n" + "\n".join(lines)
    print(f"\n{text}")
    if options.publish:
        report.publish("look", text, {"machine": where, "seconds": runs})


if __name__ == "__main__":
    main(tyro.cli(Options))
