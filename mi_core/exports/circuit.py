"""The figures of head circuits: classes, the circuit drawn, its tests, and paths into receivers."""

from typing import TYPE_CHECKING

from mi_core.analyses.attribution_inputs import head_name
from mi_core.analyses.circuit_test_result import ARRAYS as TEST_ARRAYS
from mi_core.analyses.circuit_test_result import CircuitTestResult
from mi_core.analyses.head_classes_result import ARRAYS, HeadClassesResult
from mi_core.analyses.head_classes_rules import QUANTITIES
from mi_core.analyses.path_patching_names import Head
from mi_core.analyses.path_patching_result import PathPatchingResult
from mi_core.charts import circuit as charts
from mi_core.charts.text import number
from mi_core.exports.analysis_figure import analysis_figure
from mi_core.exports.captions import model_sentence
from mi_core.exports.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

REFERENCES = ("wang2023interpretability", "goldowskydill2023localizing")

CIRCUIT_READING = (
    "Every dot is a head that has a class, or that matters without one; layers go upwards. A head gets a "
    "class only if all numbers that the class asks for lie beyond their bounds with their whole 95 % band "
    "(Wang et al., 2023); the numbers stand in the table and in the tooltip. Lines are paths: the sender's "
    "output is taken from the counterfactual prompt, all other heads are frozen, and only the receiver's "
    "query (q), key (k) or value (v) may answer. Wider = larger effect; orange lowers the logit difference, "
    "so the path helps the right answer; blue raises it. Paths that may be 0, or count for less than the "
    "least effect, are not drawn. Classes are a reading of numbers, not a proof of what a head is for."
)
TEST_READING = (
    "Faithful: the circuit alone (all other heads ablated) does what the model does. Complete: without the "
    "circuit nothing is left, and taking any part out of the circuit hurts the circuit as much as the model. "
    "Random circuits of the same size show what any heads would give. Whole heads are ablated, at every "
    "token; embeddings and MLPs never are, so 'no heads' is what these do alone (Wang et al., 2023)."
)
PATH_READING = (
    "Each cell: the head's output is taken from the counterfactual prompt, every other head is frozen at its "
    "clean value, and only the receiver may answer. What is left is what the head tells the receiver "
    "directly. The value is the change of the logit difference; 0 = it tells nothing that matters. Below 0 "
    "the path helps the right answer (Wang et al., 2023; Goldowsky-Dill et al., 2023)."
)


def circuit_figure(result: HeadClassesResult, *, chosen: Head | None = None) -> Figure:
    """The circuit drawn."""
    return _classes_figure(
        result, "The circuit", charts.circuit_drawing(result, chosen=chosen), {"figure": "circuit"},
        caption=_caption(result), description=charts.describe_circuit(result),
    )  # fmt: skip


def quantity_figure(result: HeadClassesResult, quantity: str, *, chosen: Head | None = None) -> Figure:
    """One number of all heads."""
    label, unit = QUANTITIES[quantity]
    return _classes_figure(
        result, f"All heads by {label}", charts.quantity_map(result, quantity, chosen=chosen),
        {"figure": "quantity", "quantity": quantity},
        caption=f"{label} [{unit}] of every head; 0 = none. {_caption(result)}",
        description=charts.describe_quantity(result, quantity),
    )  # fmt: skip


def class_table(result: HeadClassesResult) -> "pd.DataFrame":
    """One row per head that has a label: name, class, habits and what the label rests on."""
    import pandas as pd

    rows = [
        {
            "head": head_name(*place), "class": verdict.label, "habits": ", ".join(verdict.habits),
            "effect of ablation [logits]": result.band("ablated", *place).mean,
            "direct effect [logits]": result.band("direct", *place).mean,
            "rests on": "; ".join(verdict.reasons),
        }
        for place, verdict in result.verdicts().items()
        if verdict.label != "none"
    ]  # fmt: skip
    columns = ["head", "class", "habits", "effect of ablation [logits]", "direct effect [logits]", "rests on"]
    return pd.DataFrame(rows, columns=columns)


def _classes_figure(
    result: HeadClassesResult, title: str, spec: dict, view: dict, *, caption: str, description: str
) -> Figure:
    return analysis_figure(
        result,
        analysis="head_classes",
        title=title,
        spec=spec,
        view=view,
        caption=caption,
        how_to_read=CIRCUIT_READING,
        description=description,
        frame=result.to_frame,
        references=REFERENCES,
        function="head_classes",
        arrays=ARRAYS,
    )


def _caption(result: HeadClassesResult) -> str:
    mean, low, high = (number(float(end)) for end in result.baseline)
    inputs = result.inputs
    return (
        f"Task {inputs.task}, n = {result.n} prompts, seed {inputs.seed}: logit difference {mean} logits "
        f"(95 % band {low} to {high}), right in {100 * result.accuracy:.3g} %. Ablation: {inputs.ablation}. "
        "Effects are edited minus clean; 0 = no effect. An effect counts from "
        f"{number(result.least_effect)} logits on. "
        f"{model_sentence(result.provenance)}"
    )


def trial_figure(result: CircuitTestResult) -> Figure:
    """Faithfulness, and what is left without the circuit."""
    return _trial(
        result, "Is this the circuit?", charts.trial_bars(result), "runs", charts.describe_trial(result)
    )


def completeness_figure(result: CircuitTestResult) -> Figure:
    """Parts taken out of the circuit and out of the model."""
    return _trial(
        result, "Is it complete?", charts.completeness_scatter(result), "completeness",
        charts.describe_completeness(result),
    )  # fmt: skip


def _trial(result: CircuitTestResult, title: str, spec: dict, figure: str, description: str) -> Figure:
    inputs, share = result.inputs, result.faithfulness
    faithful = f"{100 * share:.3g} % of the model's" if share == share else "not measurable"
    return analysis_figure(
        result,
        analysis="circuit_test",
        title=title,
        spec=spec,
        view={"figure": figure},
        caption=(
            f"Circuit of {len(inputs.heads)} of {result.n_model_heads} heads: {' '.join(inputs.heads)}. Task "
            f"{inputs.task}, n = {result.n} prompts, seed {inputs.seed}; ablated: {inputs.ablation}. "
            f"Faithfulness: the logit difference of the circuit alone is {faithful}; 0 logits = the model "
            f"prefers neither answer. {model_sentence(result.provenance)}"
        ),
        how_to_read=TEST_READING,
        description=description,
        frame=result.to_frame,
        references=REFERENCES[:1],
        function="circuit_test",
        arrays=TEST_ARRAYS,
    )


def path_figure(result: PathPatchingResult, receiver: int, *, chosen: Head | None = None) -> Figure:
    """Effects of all heads' paths into one receiver."""
    inputs, name = result.inputs, result.names[receiver]
    return analysis_figure(
        result,
        analysis="path_patching",
        title=f"Paths into {name}",
        spec=charts.path_map(result, receiver, chosen=chosen),
        view={"figure": "paths", "receiver": name},
        caption=(
            f"Path patching from every head into {name}: patched minus clean logit difference [logits], mean "
            f"over n = {len(result.clean)} prompts of the task {inputs.task} (seed {inputs.seed}); 0 = no "
            f"effect. Clean: {number(float(result.clean.mean()))} logits. MLPs on the way are {inputs.mlps}. "
            f"{model_sentence(result.provenance)}"
        ),
        how_to_read=PATH_READING,
        description=charts.describe_paths(result, receiver),
        frame=result.to_frame,
        references=REFERENCES,
        function="path_patching",
        arrays=("clean", "counterfactual", "effects"),
    )
