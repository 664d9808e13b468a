"""Is a set of heads the circuit of a task? All but it ablated (faithfulness), it ablated (completeness).

    F(X)            mean logit difference with every head outside X ablated
    faithfulness    F(C) / F(M): does the circuit C alone do what the model M does?
    completeness    F(C without K) against F(M without K) for random parts K of C, and for K = C: F(no heads)
                    against F(M without C). If the circuit is the whole story, both are equal for every K.
    controls        the same for random circuits with as many heads

Whole heads are ablated, at all positions: to the mean over the counterfactual prompts of one form, to their
own counterfactual prompt's value, or to zero. Embeddings and MLPs are never ablated, so F(no heads) is what
these do alone. Sources: Wang et al. 2022 (arXiv 2211.00593, section 4); there a head belongs to the circuit
only at the positions of its role, so a circuit here is larger than the paper's.

Cost: a sweep of 3 + 2 * subsets + 2 * controls whole passes over the n prompts.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from mi_core.analyses.attribution_inputs import head_name, parse_head
from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.circuit_test_inputs import CircuitTestInputs
from mi_core.analyses.circuit_test_result import CircuitTestResult
from mi_core.analyses.head_classes_evidence import ablate, ablated_value, every_head
from mi_core.analyses.path_patching_names import Head
from mi_core.analyses.path_patching_rows import Group, clean_scores, gather, heads_written
from mi_core.analyses.path_patching_task import groups_of
from mi_core.engine import Base, Edit, Variant, sweep
from mi_core.errors import Cancelled, InputError
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance

OnStep = Callable[[Step[CircuitTestResult]], None]


def circuit_test(
    model: LoadedModel, inputs: CircuitTestInputs, *, on_step: OnStep | None = None
) -> CircuitTestResult:
    """Test a circuit.

    Args:
        model: a loaded model.
        inputs: its heads, and the task.
        on_step: told of progress; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: a head is none of this model, or the task cannot be made for its tokenizer.
        SiteMissing: the model's heads cannot be changed.
    """
    _heads_of(model, inputs)
    return try_circuit(model, groups_of(model, inputs), inputs, on_step=on_step)


def try_circuit(
    model: LoadedModel, groups: Sequence[Group], inputs: CircuitTestInputs, *, on_step: OnStep | None = None
) -> CircuitTestResult:
    """`circuit_test` on prompts that are tensors already."""
    started = time.perf_counter()
    heads = _heads_of(model, inputs)
    draws = _Draws.of(every_head(model), heads, inputs)
    parts = []
    for number, group in enumerate(groups):

        def tick(share: float, number: int = number) -> None:
            if on_step is not None:
                done = (number + share) / len(groups)
                on_step(Step(round(1000 * done), 1000, None, None, "circuits"))

        parts.append(_scores(model, group, draws.kept, inputs, tick))
    found = gather(parts, groups)
    clean = gather([clean_scores(model, group) for group in groups], groups)
    s, c = len(draws.subsets), inputs.controls
    ends = np.cumsum([4, s, s, c, c])
    scores, subset_circuit, subset_model, controls, rests = np.split(found, ends[:-1])
    return CircuitTestResult(
        inputs=inputs,
        provenance=Provenance.of(model, seed=inputs.seed),
        n_model_heads=len(every_head(model)),
        scores=scores,
        subsets=tuple(tuple(head_name(*head) for head in sorted(part)) for part in draws.subsets),
        subset_circuit=subset_circuit,
        subset_model=subset_model,
        controls=controls,
        control_rests=rests,
        warnings=tuple(_warnings(scores, len(every_head(model)), len(heads))),
        checks=(_clean_check(scores[0], clean),),
        seconds=time.perf_counter() - started,
    )


def _heads_of(model: LoadedModel, inputs: CircuitTestInputs) -> list[Head]:
    """The circuit's heads, all of which the model must have."""
    model.structure.require("z", 0)
    places, dims = [parse_head(name) for name in inputs.heads], model.dims
    for layer, head in places:
        if layer >= dims.n_layers or head >= dims.n_heads:
            raise InputError(
                f"This model has no head {head_name(layer, head)}",
                why=f"it has {dims.n_layers} layers of {dims.n_heads} heads",
            )
    return places


@dataclass(frozen=True, slots=True)
class _Draws:
    """What is left standing in every run.

    Attributes:
        subsets: parts of the circuit that are taken out.
        kept: heads that stay, run by run, in the order of the result's arrays.
    """

    subsets: list[frozenset[Head]]
    kept: list[frozenset[Head]] = field(default_factory=list)

    @classmethod
    def of(cls, every: Sequence[Head], heads: Sequence[Head], inputs: CircuitTestInputs) -> "_Draws":
        """Draw parts of the circuit and random circuits."""
        generator = np.random.default_rng(inputs.seed)
        whole, circuit = frozenset(every), frozenset(heads)
        subsets = [
            frozenset(heads[index] for index in np.flatnonzero(generator.random(len(heads)) < 0.5).tolist())
            for _ in range(inputs.subsets)
        ]
        randoms = [
            frozenset(every[index] for index in generator.choice(len(every), len(heads), replace=False))
            for _ in range(inputs.controls)
        ]
        kept = [whole, circuit, whole - circuit, frozenset()]
        kept += [circuit - part for part in subsets] + [whole - part for part in subsets]
        return cls(subsets, kept + randoms + [whole - one for one in randoms])


def _scores(
    model: LoadedModel,
    group: Group,
    kept: Sequence[frozenset[Head]],
    inputs: CircuitTestInputs,
    tick: Callable[[float], None],
) -> np.ndarray:
    """Logit differences [run row]; a run in which all heads stay is the clean run."""
    values = [ablated_value(value, inputs.ablation) for value in heads_written(model, group.counterfactual)]
    edits = [tuple(_without(model, values, stays)) for stays in kept]
    changed = [index for index, one in enumerate(edits) if one]
    found = sweep(
        model,
        Base(group.tokens),
        [Variant(edits[index]) for index in changed],
        read=group.read,
        on_tick=tick,
    )
    if found.cancelled:
        raise Cancelled
    scores = np.repeat(found.base["difference"], len(kept), 0)
    scores[changed] = found.values["difference"]
    return scores


def _without(model: LoadedModel, values: Sequence[Tensor], stays: frozenset[Head]) -> list[Edit]:
    """Every head that does not stay is held at its ablated value."""
    gone = {
        layer: [head for head in range(model.dims.n_heads) if (layer, head) not in stays]
        for layer in range(model.dims.n_layers)
    }
    return [ablate(layer, heads, values[layer]) for layer, heads in gone.items() if heads]


def _clean_check(scores: np.ndarray, clean: np.ndarray) -> Check:
    gap = float(np.abs(scores - clean).max())
    return Check(
        "with nothing ablated the model is itself",
        gap <= 1e-3 * max(1.0, float(np.abs(clean).max())),
        f"Largest difference to the model's own logit differences: {gap:.1e} logits.",
    )


def _warnings(scores: np.ndarray, n_model: int, n_circuit: int) -> list[str]:
    said = []
    if not scores[0].mean() > 0:
        said.append("The model itself does not do this task: its mean logit difference is not above 0.")
    if 2 * n_circuit > n_model:
        said.append(f"The circuit has {n_circuit} of {n_model} heads: random ones share most of it.")
    return said
