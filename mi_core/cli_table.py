"""The table of the command line's analyses: one row each; options and help are made from it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mi_core.cli_texts import lens_texts, prompt_cases, prompt_pairs, subject_span, text_set, vector_file

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel

VECTOR_HELP = "an .npy or .safetensors file (--source file), or a feature such as L5F102 (--source feature)"
TextField = Callable[["LoadedModel", Mapping[str, Any], str], Any]
"""Turns the text of an option into the value of an Inputs field, given the model and the other options."""


@dataclasses.dataclass(frozen=True, slots=True)
class Extra:
    """An option that is no field of the Inputs but helps to resolve one.

    Attributes:
        name: of the option.
        default: its value when not given.
        help: one clause.
    """

    name: str
    default: int
    help: str


@dataclasses.dataclass(frozen=True, slots=True)
class Analysis:
    """One subcommand.

    Attributes:
        help: one line.
        inputs: "module:name" of its Inputs.
        function: "module:name" of its function `(model, inputs, on_step=...) -> Result`.
        text_fields: fields that are given as text: (function that resolves them, help).
        defaults: text of such a field when none is given; else it is required if its field is.
        extras: options that these functions read besides.
    """

    help: str
    inputs: str
    function: str
    text_fields: Mapping[str, tuple[TextField, str]] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, str] = dataclasses.field(default_factory=dict)
    extras: tuple[Extra, ...] = ()


ANALYSES: dict[str, Analysis] = {
    "causal-trace": Analysis(
        help="trace where the answer to a prompt comes from, layer by layer and token by token",
        inputs="mi_core.analyses:CausalTraceInputs",
        function="mi_core.analyses:causal_trace",
        text_fields={
            "subject": (subject_span, 'what is noised: words of the prompt, or a token span like "2:5"')
        },
        extras=(Extra("occurrence", 0, "which occurrence of those words, from 0"),),
    ),
    "causal-trace-average": Analysis(
        help="average causal traces over a prompt set, by token role and layer",
        inputs="mi_core.analyses:CausalTraceAverageInputs",
        function="mi_core.analyses:causal_trace_average",
        text_fields={
            "cases": (prompt_cases, '"facts" (the bundled ones), or a prompt file (CSV or JSON)'),
        },
        extras=(Extra("limit", 60, "how many prompts at most, even over relations"),),
    ),
    "inspect": Analysis(
        help="describe a model: every weight with its numbers, sites, proofs, config, memory",
        inputs="mi_core.analyses:InspectInputs",
        function="mi_core.analyses:inspect_model",
    ),
    "inspect-weight": Analysis(
        help="look at one weight closely: histogram of its entries, singular values",
        inputs="mi_core.analyses:InspectWeightInputs",
        function="mi_core.analyses:inspect_weight",
    ),
    "next-token": Analysis(
        help="what comes after a prompt, and how much every token of it surprised the model",
        inputs="mi_core.analyses:NextTokenInputs",
        function="mi_core.analyses:next_token",
    ),
    "tuned-lens-train": Analysis(
        help="train a tuned lens on a text and save it beside the model",
        inputs="mi_core.analyses:TunedLensSaveInputs",
        function="mi_core.analyses:tuned_lens_train_and_save",
        text_fields={
            "texts": (
                lens_texts,
                '"diverse" (the bundled ones), or a text file; blank lines separate documents',
            )
        },
    ),
    "logit-lens": Analysis(
        help="read every layer of a prompt through the model's own output",
        inputs="mi_core.analyses:LogitLensInputs",
        function="mi_core.analyses:logit_lens",
    ),
    "logit-lens-steps": Analysis(
        help="how attention and MLP of each layer change what the logit lens says at one token",
        inputs="mi_core.analyses:LogitLensStepsInputs",
        function="mi_core.analyses:logit_lens_steps",
    ),
    "prediction-sweep": Analysis(
        help="find the layer at which the right answer appears and stays, over a prompt set",
        inputs="mi_core.analyses:PredictionSweepInputs",
        function="mi_core.analyses:prediction_sweep",
        text_fields={
            "cases": (prompt_cases, '"facts", "five" (bundled ones), or a prompt file (CSV or JSON)'),
        },
        extras=(
            Extra("limit", 60, "how many prompts at most, even over relations"),
            Extra("seed", 0, "of the draw"),
        ),
    ),
    "attention": Analysis(
        help="every head's attention over a prompt, what it moves, and numbers that tell heads apart",
        inputs="mi_core.analyses:AttentionInputs",
        function="mi_core.analyses:attention_patterns",
    ),
    "head-scores": Analysis(
        help="kinds of heads (induction, previous token, ...) found on repeated random tokens",
        inputs="mi_core.analyses:HeadScoresInputs",
        function="mi_core.analyses:head_scores",
    ),
    "copying-scores": Analysis(
        help="score how far every head copies what it reads, from its weights",
        inputs="mi_core.analyses:CopyingScoresInputs",
        function="mi_core.analyses:copying_scores",
    ),
    "head-views": Analysis(
        help="read the strongest directions of a head's OV or QK weights through the vocabulary",
        inputs="mi_core.analyses:HeadViewsInputs",
        function="mi_core.analyses:head_views",
    ),
    "composition": Analysis(
        help="score which head reads what which earlier head writes, from their weights",
        inputs="mi_core.analyses:CompositionInputs",
        function="mi_core.analyses:composition",
    ),
    "neurons": Analysis(
        help="find the most active MLP neurons of every layer over a set of texts",
        inputs="mi_core.analyses:NeuronSurveyInputs",
        function="mi_core.analyses:neuron_survey",
        text_fields={
            "texts": (text_set, '"diverse" (the bundled ones), or a file of texts (TXT, CSV or JSON)')
        },
        defaults={"texts": "diverse"},
        extras=(Extra("limit", 5000, "how many texts at most"),),
    ),
    "neuron": Analysis(
        help="look at one MLP neuron over a set of texts: contexts, histogram, vocabulary",
        inputs="mi_core.analyses:NeuronInputs",
        function="mi_core.analyses:neuron",
        text_fields={
            "texts": (text_set, '"diverse" (the bundled ones), or a file of texts (TXT, CSV or JSON)')
        },
        defaults={"texts": "diverse"},
        extras=(Extra("limit", 5000, "how many texts at most"),),
    ),
    "neuron-text": Analysis(
        help="one MLP neuron's activation at every token of a text",
        inputs="mi_core.analyses:NeuronTextInputs",
        function="mi_core.analyses:neuron_text",
    ),
    "neuron-prompt": Analysis(
        help="the most active MLP neurons at every token and layer of a prompt",
        inputs="mi_core.analyses:NeuronPromptInputs",
        function="mi_core.analyses:neuron_prompt",
    ),
    "generate": Analysis(
        help="continue a prompt as the model is and while it is edited, side by side",
        inputs="mi_core.analyses:GenerationInputs",
        function="mi_core.analyses:generation",
    ),
    "recurrent-feedback": Analysis(
        help="second lines of couplets, by the model as it is and with a block of layers run again",
        inputs="mi_core.analyses:RecurrentFeedbackInputs",
        function="mi_core.analyses:recurrent_feedback",
    ),
    "head-sweep": Analysis(
        help="take every head (or module, edge, key) out, one at a time, and see what the answer loses",
        inputs="mi_core.analyses:AblationSweepInputs",
        function="mi_core.analyses:ablation_sweep",
    ),
    "joint-ablation": Analysis(
        help="each intervention of a list alone, and all of them together",
        inputs="mi_core.analyses:JointAblationInputs",
        function="mi_core.analyses:joint_ablation",
    ),
    "attention-dose": Analysis(
        help="turn the attention of one edge up and down, and see what the answer does",
        inputs="mi_core.analyses:AttentionDoseInputs",
        function="mi_core.analyses:attention_dose",
    ),
    "task-baseline": Analysis(
        help="how well a model does a task: accuracy and logit difference over prompt pairs",
        inputs="mi_core.analyses:TaskInputs",
        function="mi_core.analyses:task_baseline",
        text_fields={"pairs": (prompt_pairs, "a file of prompt pairs (CSV or JSON), for --task pairs")},
        defaults={"pairs": ""},
    ),
    "head-ablation": Analysis(
        help="take every head out over a task's prompts and see what the logit difference loses",
        inputs="mi_core.analyses:HeadAblationInputs",
        function="mi_core.analyses:head_ablation",
        text_fields={"pairs": (prompt_pairs, "a file of prompt pairs (CSV or JSON), for --task pairs")},
        defaults={"pairs": ""},
    ),
    "task-heads": Analysis(
        help="where every head looks from the last token of a task's prompts, and what it writes directly",
        inputs="mi_core.analyses:TaskInputs",
        function="mi_core.analyses:task_heads",
        text_fields={"pairs": (prompt_pairs, "a file of prompt pairs (CSV or JSON), for --task pairs")},
        defaults={"pairs": ""},
    ),
    "circuit": Analysis(
        help="give every head a class on a task, by evidence, draw the circuit and test it",
        inputs="mi_core.analyses:HeadClassesInputs",
        function="mi_core.analyses:head_circuit",
        text_fields={"pairs": (prompt_pairs, "a file of prompt pairs (CSV or JSON), for --task pairs")},
        defaults={"pairs": ""},
    ),
    "path-patching": Analysis(
        help="patch the direct path from every head into the logits or into other heads' inputs",
        inputs="mi_core.analyses:PathPatchingInputs",
        function="mi_core.analyses:path_patching",
        text_fields={"pairs": (prompt_pairs, "a file of prompt pairs (CSV or JSON), for --task pairs")},
        defaults={"pairs": ""},
    ),
    "knockout": Analysis(
        help="run a prompt with heads, edges, layers or neurons cut, zeroed, scaled or replaced",
        inputs="mi_core.analyses:KnockoutInputs",
        function="mi_core.analyses:knockout",
    ),
    "character-helix": Analysis(
        help="find how a model represents the number of characters since the line began, in every layer",
        inputs="mi_core.analyses:CharacterHelixInputs",
        function="mi_core.analyses:character_helix",
        text_fields={
            "texts": (text_set, '"diverse" (the bundled ones), or a file of texts (TXT, CSV or JSON)')
        },
        defaults={"texts": "diverse"},
        extras=(Extra("limit", 5000, "how many texts at most"),),
    ),
    "attribution": Analysis(
        help="split the answer's logit into what embedding, attention, MLPs, heads and neurons contribute",
        inputs="mi_core.analyses:AttributionInputs",
        function="mi_core.analyses:attribution",
    ),
    "steer": Analysis(
        help="add a vector to the stream and read the answer for a list of coefficients",
        inputs="mi_core.analyses:SteeringInputs",
        function="mi_core.analyses:steering_dose",
        text_fields={"vector": (vector_file, VECTOR_HELP)},
        defaults={"vector": ""},
    ),
    "steer-layers": Analysis(
        help="add a vector at each layer in turn",
        inputs="mi_core.analyses:SteeringInputs",
        function="mi_core.analyses:steering_layers",
        text_fields={"vector": (vector_file, VECTOR_HELP)},
        defaults={"vector": ""},
    ),
    "steer-convergence": Analysis(
        help="see whether the state comes back after a push, layer by layer",
        inputs="mi_core.analyses:SteeringInputs",
        function="mi_core.analyses:steering_convergence",
        text_fields={"vector": (vector_file, VECTOR_HELP)},
        defaults={"vector": ""},
    ),
    "features": Analysis(
        help="list the features of a transcoder that are active on a prompt, by layer and token",
        inputs="mi_core.transcoders:FeaturesOnPromptInputs",
        function="mi_core.transcoders:features_on_prompt",
    ),
    "feature-probe": Analysis(
        help="probe the features of one layer at every token, and inject one at each token in turn",
        inputs="mi_core.transcoders:CltProbeInputs",
        function="mi_core.transcoders:clt_probe",
    ),
    "inject": Analysis(
        help="set, add, scale, suppress or ablate features of a transcoder, and compare before and after",
        inputs="mi_core.transcoders:InjectInputs",
        function="mi_core.transcoders:inject",
    ),
    "graph": Analysis(
        help="trace a logit back through features, errors and tokens: an exact linear attribution graph",
        inputs="mi_core.transcoders:GraphInputs",
        function="mi_core.transcoders:attribution_graph",
    ),
    "graph-heads": Analysis(
        help="split an edge of an attribution graph by the attention heads that carry it",
        inputs="mi_core.transcoders:HeadLoadingsInputs",
        function="mi_core.transcoders:head_loadings",
    ),
    "graph-effects": Analysis(
        help="remove nodes of an attribution graph: what it predicts, and what the model does",
        inputs="mi_core.transcoders:GraphEffectsInputs",
        function="mi_core.transcoders:graph_effects",
    ),
    "planning": Analysis(
        help="push features at one token after the other and read where the answer changes",
        inputs="mi_core.transcoders:PlanningInputs",
        function="mi_core.transcoders:planning",
    ),
    "planning-features": Analysis(
        help="pick the features before a prompt's end that make it say its word",
        inputs="mi_core.transcoders:PlanningPickInputs",
        function="mi_core.transcoders:planning_features",
    ),
    "feature-generation": Analysis(
        help="continue a prompt with features pushed or set at every step, beside the text without",
        inputs="mi_core.transcoders:FeatureGenerationInputs",
        function="mi_core.transcoders:feature_generation",
    ),
    "feature-routing": Analysis(
        help="see which heads look at a token into which features are pushed",
        inputs="mi_core.transcoders:FeatureRoutingInputs",
        function="mi_core.transcoders:feature_routing",
    ),
    "corpus-pass": Analysis(
        help="run a text through a transcoder and write its features files: densities, examples",
        inputs="mi_core.transcoders:CorpusPassInputs",
        function="mi_core.transcoders:corpus_pass",
    ),
    "feature-text": Analysis(
        help="one feature of a transcoder at every token of a text",
        inputs="mi_core.transcoders:FeatureTextInputs",
        function="mi_core.transcoders:feature_on_text",
    ),
    "feature": Analysis(
        help="one feature of a transcoder from its weights: words written and read, target layers",
        inputs="mi_core.transcoders:FeatureWeightsInputs",
        function="mi_core.transcoders:feature_weights",
    ),
    "feature-neighbours": Analysis(
        help="features that read or write like one, feed it or are fed by it (independent of the input)",
        inputs="mi_core.transcoders:FeatureNeighboursInputs",
        function="mi_core.transcoders:feature_neighbours",
    ),
    "word-search": Analysis(
        help="find the features of a transcoder that write or read a word",
        inputs="mi_core.transcoders:WordSearchInputs",
        function="mi_core.transcoders:word_search",
    ),
}
