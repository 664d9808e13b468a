"""A tuned lens beside the plain one, layer by layer, and the course of its training."""

from typing import Any

from mi_core.analyses.tuned_lens_result import UNIT, TunedLensTrainResult
from mi_core.charts.lines import Line, lines
from mi_core.charts.text import number

Spec = dict[str, Any]

Y_TITLE = "KL(model || lens)"
MAX_COURSES = 6  # lines that can still be told apart


def quality_lines(
    result: TunedLensTrainResult, *, from_layer: int = 0, chosen_layer: int | None = None
) -> Spec:
    """KL per layer on the validation text, plain and tuned, with 95 % bands.

    Args:
        result: a training.
        from_layer: first layer that is drawn; the plain lens at the embeddings is often far above the rest.
        chosen_layer: layer to mark.
    """
    layers = list(range(from_layer, result.n_layers))
    return lines(
        [
            _line("plain lens", layers, result.plain_kl, result.plain_low, result.plain_high),
            _line("tuned lens", layers, result.tuned_kl, result.tuned_low, result.tuned_high),
        ],
        x_title="layer whose input is read",
        y_title=Y_TITLE,
        unit=UNIT,
        chosen_x=chosen_layer,
    )


def _line(name: str, layers: list[int], value: Any, low: Any, high: Any) -> Line:
    ends = [[float(end[layer]) for layer in layers] for end in (value, low, high)]
    return Line(name, layers, *ends)


def course_layers(result: TunedLensTrainResult) -> list[int]:
    """Up to six layers, evenly spread, the first and the last among them."""
    last, count = result.n_layers - 1, min(MAX_COURSES, result.n_layers)
    return sorted({round(index * last / max(1, count - 1)) for index in range(count)})


def course_lines(result: TunedLensTrainResult) -> Spec:
    """KL on the held-out text that decides when to stop, over training steps, a line per layer."""
    steps = [float(step) for step in result.checked_steps]
    return lines(
        [
            Line(f"layer {layer}", steps, [float(value) for value in result.stopping_kl[:, layer]])
            for layer in course_layers(result)
        ],
        x_title="training steps done",
        y_title=Y_TITLE,
        unit=UNIT,
    )


def describe_quality(result: TunedLensTrainResult) -> str:
    """Text alternative of `quality_lines`."""
    parts = [
        f"layer {layer}: plain {number(plain)}, tuned {number(tuned)}"
        for layer, (plain, tuned) in enumerate(
            zip(result.plain_kl.tolist(), result.tuned_kl.tolist(), strict=True)
        )
    ]
    return f"Two lines over layers, {Y_TITLE} in {UNIT}. " + "; ".join(parts) + "."


def describe_course(result: TunedLensTrainResult) -> str:
    """Text alternative of `course_lines`."""
    first, last = result.stopping_kl[0], result.stopping_kl[-1]
    parts = [
        f"layer {layer} from {number(float(first[layer]))} to {number(float(last[layer]))}"
        for layer in course_layers(result)
    ]
    return f"Lines over training steps, {Y_TITLE} in {UNIT}: " + "; ".join(parts) + "."
