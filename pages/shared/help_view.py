"""What the help page says: methods with formulas and limits, supported models, words, keys."""

from __future__ import annotations

import streamlit as st

from mi_core.analyses.causal_trace_inputs import METRICS
from mi_core.model.families import FAMILIES
from mi_core.sites import SITES
from pages.shared.ablation_sweep_text import SWEEP_METHOD
from pages.shared.attention_text import ATTENTION_METHOD
from pages.shared.attribution_text import ATTRIBUTION_METHOD, PATCHING_METHOD
from pages.shared.circuit_text import CIRCUIT_METHOD
from pages.shared.feature_corpus_text import CORPUS_METHOD
from pages.shared.feature_graph_text import GRAPH_METHOD
from pages.shared.feature_inject_text import INJECT_METHOD
from pages.shared.feature_one_text import WEIGHTS_METHOD
from pages.shared.feature_planning_text import PLANNING_METHOD
from pages.shared.feature_prompt_text import PROMPT_METHOD
from pages.shared.feature_source_text import SOURCE_METHOD
from pages.shared.generation_text import GENERATION_METHOD, LOOP_METHOD
from pages.shared.helix_text import HELIX_METHOD
from pages.shared.knockout_text import KNOCKOUT_METHOD
from pages.shared.lens_text import LENS_METHOD
from pages.shared.method_text import AVERAGE_METHOD, TRACE_METHOD
from pages.shared.model_circuits_text import CIRCUITS_METHOD
from pages.shared.model_text import MODEL_METHOD
from pages.shared.neuron_method import METHOD as NEURON_METHOD
from pages.shared.steering_text import STEERING_METHOD
from pages.shared.tuned_lens_text import TUNED_METHOD

_KEYS = """
| key | does |
|---|---|
| `Ctrl` + `Enter` | Run |
| click on a token | subject from here; a second click ends it |
| `Shift` + click on a token | extend the subject |
| click on a cell | select it; double click lets go |
| arrow keys, `Enter`, `Space` on the heads of Attention | move, lock, show one alone |
| `Tab`, `Enter` | tokens, buttons and menus are reachable by keyboard |

**Links.** The address bar always holds a link to what you see: model, prompt, settings and selected cell.
Values that are the default are left out. A link that asks for something that is not here says so; nothing is
dropped silently. Uploaded prompt sets are not in the link.

**Privacy.** The server listens on this machine only and sends no statistics. The network is used in one case:
when you press *Look it up on Hugging Face* or *Download*.
"""

_MODELS = """
Any Hugging Face causal language model with safetensors of these families, and models built like Llama:

{families}

When a model is loaded, a probe proves on the model itself that every site is what its name says: shapes, rows
of attention that sum to one, parts that add up to the whole, the model's own logits. What fails is switched
off; the sidebar shows the report.

Weights come from safetensors only; pickles are refused, and code from a repository is never run. Models are
found in the Hugging Face cache (`HF_HOME`, `HF_HUB_CACHE`) or by the path of a folder.
"""

_WORDS = """
- **Token**: what the model reads, shown as its position and its text; `·` is a space, `↵` a line break.
  Positions count from 0 and include the beginning-of-sequence token.
- **Layer**, **head**: counted from 0; `L9H6` is head 6 of layer 9.
- **State**: the residual stream after a block (`resid_post`).
- **Subject**: the tokens the question is about; figures mark them with `*`.
- **Target**: the answer whose probability is followed. If you leave it empty it is the clean run's top token.
- **Logarithms** are natural, divergences in nats.
"""


METHODS: dict[str, dict[str, str]] = {
    "Look": {
        "Model: weights, next token, surprise": MODEL_METHOD,
        "Circuits": CIRCUITS_METHOD,
        "Attention": ATTENTION_METHOD,
        "Logit lens and prediction sweep": LENS_METHOD,
        "Tuned lens": TUNED_METHOD,
        "Neurons": NEURON_METHOD,
        "Attribution": ATTRIBUTION_METHOD,
    },
    "Intervene": {
        "Causal trace": TRACE_METHOD,
        "Average over a prompt set": AVERAGE_METHOD,
        "Attribution patching (preview of a causal trace)": PATCHING_METHOD,
        "Knock-out": KNOCKOUT_METHOD,
        "Sweeps of ablations, and the dose of an edge": SWEEP_METHOD,
        "Head circuits": CIRCUIT_METHOD,
        "Steering": STEERING_METHOD,
        "Generation with edits": GENERATION_METHOD,
        "Recurrent feedback": LOOP_METHOD,
        "Counting characters": HELIX_METHOD,
    },
    "Features": {
        "Transcoders: formats, fit, the hub": SOURCE_METHOD,
        "Features of a prompt, and the probe": PROMPT_METHOD,
        "One feature, and features found by a word": WEIGHTS_METHOD,
        "A feature over a corpus": CORPUS_METHOD,
        "Interventions on features": INJECT_METHOD,
        "Features: planning and steering": PLANNING_METHOD,
        "Attribution graph of features": GRAPH_METHOD,
    },
}
"""Section of the navigation -> name of a method -> what is said about it."""


def draw_methods() -> None:
    """One card per method, in the order of the navigation."""
    for section, methods in METHODS.items():
        st.header(section)
        for name, text in methods.items():
            with st.container(border=True):
                st.subheader(name)
                st.markdown(text)
    st.subheader("Metrics")
    st.dataframe(
        {
            "metric": [metric.label for metric in METRICS.values()],
            "unit": [metric.unit for metric in METRICS.values()],
            "meaning": [metric.meaning for metric in METRICS.values()],
        },
        hide_index=True,
        alt="Metrics with units and meanings.",
    )


def draw_models() -> None:
    """Which models can be opened."""
    st.markdown(_MODELS.format(families=" ".join(f"`{name}`" for name in FAMILIES)))


def draw_words() -> None:
    """The words that all pages use."""
    st.markdown(_WORDS)


def draw_sites() -> None:
    """The table of sites, from the library."""
    st.subheader("Sites")
    st.dataframe(
        {
            "site": list(SITES),
            "shape": [" ".join(site.axes) for site in SITES.values()],
            "meaning": [site.meaning for site in SITES.values()],
            "TransformerLens name": [site.full_name for site in SITES.values()],
            "models": [site.availability for site in SITES.values()],
        },
        hide_index=True,
        alt="Sites of a decoder: name, shape, meaning.",
    )


def draw_keys() -> None:
    """Keyboard, links, privacy."""
    st.markdown(_KEYS)
