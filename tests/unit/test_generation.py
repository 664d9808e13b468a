"""Generation with edits: identities, numbers by a second computation, and what users do wrong."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch

from mi_core.analyses import GenerationInputs, GenerationResult, Step, generation
from mi_core.analyses.generation_edits import generation_edits, steering_vector
from mi_core.analyses.generation_run import continuations
from mi_core.charts.generation import generation_texts, kl_lines
from mi_core.engine import Edit, build_model, run
from mi_core.errors import Cancelled, EditError, InputError
from mi_core.exports.generation import kl_figure, texts_figure
from mi_core.model.model import LoadedModel
from tests.tiny import hf_model
from tests.words import word_tokenizer

PROMPT = "The Eiffel Tower is in"
EDITED = GenerationInputs(PROMPT, interventions="L1H2:zero, c1@L2, e3-2@L1", steps=8, stop_at_end=False)
STEERED = GenerationInputs(
    PROMPT, plus="Paris France", minus="the city", layer=1, coefficient=2.0, steps=8, stop_at_end=False
)


@lru_cache
def model(name: str = "gpt2") -> LoadedModel:
    return build_model(hf_model(name), word_tokenizer())


@lru_cache
def result_of(inputs: GenerationInputs) -> GenerationResult:
    return generation(model(), inputs)


def test_without_edits_both_texts_are_the_same_and_kl_is_zero() -> None:
    result = generation(model(), replace(EDITED, interventions="", temperature=1.0, seeds=(3, 4)))
    np.testing.assert_array_equal(result.default_ids, result.edited_ids)
    np.testing.assert_array_equal(result.default_log_probabilities, result.edited_log_probabilities)
    assert (result.kl == 0).all()
    assert result.first_difference.tolist() == [-1, -1]
    assert any("Nothing is edited" in warning for warning in result.warnings)
    assert all(check.passed for check in result.checks)
    assert len(result.checks) == 2


def test_strength_zero_is_the_default_model() -> None:
    result = result_of(replace(STEERED, coefficient=0.0))
    np.testing.assert_array_equal(result.default_ids, result.edited_ids)
    assert float(np.abs(result.kl).max()) < 1e-12


def test_steering_is_what_transformers_writes_with_a_plain_hook() -> None:
    """A second implementation that shares no code: hooks on the Hugging Face model, its own generate."""
    hf, words = model().hf, word_tokenizer()
    ids = {text: torch.tensor([words(text)["input_ids"]]) for text in (PROMPT, "Paris France", "the city")}
    with torch.no_grad():
        ends = [hf(ids[text], output_hidden_states=True).hidden_states[2][0, -1] for text in list(ids)[1:]]
        vector = ends[0] - ends[1]
        settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": 999}
        default = hf.generate(ids[PROMPT], **settings)

        def push(_module: torch.nn.Module, _args: object, out: torch.Tensor) -> torch.Tensor:
            return out + 2.0 * vector

        plain = hf(default[:, :-1]).logits[0, -8:].log_softmax(-1)
        handle = hf.transformer.h[1].register_forward_hook(push)
        edited = hf.generate(ids[PROMPT], **settings)
        steered = hf(default[:, :-1]).logits[0, -8:].log_softmax(-1)
        own = hf(edited[:, :-1]).logits[0, -8:].log_softmax(-1)
        handle.remove()
    result = result_of(STEERED)
    n_prompt = ids[PROMPT].shape[1]
    assert result.default_ids[0].tolist() == default[0, n_prompt:].tolist()
    assert result.edited_ids[0].tolist() == edited[0, n_prompt:].tolist()
    assert result.first_difference[0] >= 0
    kl = (plain.exp() * (plain - steered)).sum(-1)
    np.testing.assert_allclose(result.kl[0], kl, rtol=1e-9)
    chosen = own[range(8), edited[0, n_prompt:]]
    np.testing.assert_allclose(result.edited_log_probabilities[0], chosen, rtol=1e-9)


def test_lines_are_texts_and_their_states_are_averaged() -> None:
    one = steering_vector(model(), STEERED, 1)
    other = steering_vector(model(), replace(STEERED, plus="Rome Italy"), 1)
    both = steering_vector(model(), replace(STEERED, plus="Paris France\n\nRome Italy\n"), 1)
    torch.testing.assert_close(both, (one + other) / 2)
    assert "2 texts, mean" in texts_figure(result_of(replace(STEERED, plus="Paris\nRome")), 0).caption


@pytest.mark.parametrize("where", ["prompt", "generated"])
def test_where_reaches_the_steering(where: str) -> None:
    result = result_of(replace(STEERED, where=where))  # type: ignore[arg-type]
    assert (result.kl[0, 0] == 0) == (where == "generated")  # the first token is chosen by the prompt
    assert result.kl[0, 1:].max() > 0


def test_a_column_stays_cut_for_generated_queries() -> None:
    result = result_of(EDITED)
    edits = generation_edits(model(), [token.id for token in result.tokens], EDITED).edits
    assert [edit.positions for edit in edits if edit.keys == (1,)] == [None]
    whole = torch.tensor([[t.id for t in result.tokens] + result.edited_ids[0, :-1].tolist()])
    n_pos = whole.shape[1]
    by_hand = [
        Edit("z", 1, "zero", heads=(2,)),
        Edit("pattern", 2, "mask", tuple(range(1, n_pos)), keys=(1,)),
        Edit("pattern", 1, "mask", (3,), keys=(2,)),
    ]
    log_p = run(model(), whole, edits=by_hand).logits[0, -8:].log_softmax(-1)
    assert log_p.argmax(-1).tolist() == result.edited_ids[0].tolist()
    seen = run(model(), whole, edits=by_hand, capture=["pattern"])["pattern", 2][0]
    assert (seen[:, :, 1] == 0).all()


@pytest.mark.parametrize("text", ["e3-2@L1:set=0.7", "c1@L1:scale=0.5", "L1H0:mean", "L2mlp:resample"])
def test_every_kind_of_intervention_stays_exact(text: str) -> None:
    inputs = replace(EDITED, interventions=text, second_prompt="Big Ben is located downtown")
    result = result_of(inputs)
    assert all(check.passed for check in result.checks)
    assert result.kl.max() > 0
    known = "the prompt only" in " ".join(result.warnings)
    assert known == ("resample" in text)


def test_seeds_are_rows_and_reproduce() -> None:
    sampled = replace(EDITED, temperature=1.0, top_p=0.9, seeds=(1, 2))
    result = generation(model(), sampled)
    again = generation(model(), replace(sampled, seeds=(2,)))
    np.testing.assert_array_equal(result.edited_ids[1:], again.edited_ids)
    assert result.default_ids[0].tolist() != result.default_ids[1].tolist()
    greedy = generation(model(), replace(EDITED, seeds=(1, 2)))
    assert greedy.seeds == (1,)
    assert any("Greedy" in warning for warning in greedy.warnings)


def test_a_text_that_ends_early_leaves_gaps() -> None:
    open_ended = result_of(EDITED)
    end = int(open_ended.default_ids[0, 3])
    first = open_ended.default_ids[0].tolist().index(end)
    ending = build_model(hf_model("gpt2"), word_tokenizer())
    ending.hf.generation_config.eos_token_id = end
    result = generation(ending, replace(EDITED, stop_at_end=True))
    assert result.default_stopped == ("eos",)
    assert result.default_ids[0, : first + 1].tolist() == open_ended.default_ids[0, : first + 1].tolist()
    assert (result.default_ids[0, first + 1 :] == -1).all()
    assert np.isnan(result.kl[0, first + 1 :]).all()
    assert texts_figure(result, 0).caption
    assert GenerationResult.from_json(result.to_json()).default_stopped == ("eos",)


def test_cancelling_returns_the_seeds_that_are_done() -> None:
    inputs = replace(EDITED, temperature=1.0, seeds=(1, 2, 3))

    def stop_at(tokens: int) -> object:
        def on_step(step: Step[GenerationResult]) -> None:
            if step.done >= tokens:
                raise Cancelled

        return on_step

    result = generation(model(), inputs, on_step=stop_at(16 * 2 - 3))  # type: ignore[arg-type]
    assert result.cancelled
    assert result.seeds == (1,)
    with pytest.raises(Cancelled):
        generation(model(), inputs, on_step=stop_at(5))  # type: ignore[arg-type]


def test_continuations_before_and_after() -> None:
    ids = [token.id for token in result_of(EDITED).tokens]
    default, edited = continuations(model(), ids, [Edit("z", 1, "zero")], 5)
    assert len(default.ids) == len(edited.ids) == 5
    same, also = continuations(model(), ids, [], 5)
    assert same.ids == also.ids == default.ids
    noise = torch.ones(len(ids), 32, dtype=torch.float64)
    assert continuations(model(), ids, [Edit("embed", None, "add", value=noise)], 5)[1].ids


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"plus": "Paris"}, "two texts"),
        ({"plus": " \n", "minus": "Rome"}, "no line"),
        ({"steps": 0}, "number of steps"),
        ({"steps": 1001}, "number of steps"),
        ({"temperature": -1.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"where": "there"}, "where"),
        ({"coefficient": float("inf")}, "coefficient"),
    ],
)
def test_bad_choices_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError, match=told):
        replace(EDITED, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"interventions": "L9H0:zero"}, "L9H0"),
        ({"interventions": "e2-3@L1"}, "future"),
        ({"interventions": "nonsense"}, "nonsense"),
        ({"interventions": "L1H0:resample"}, "prompt B"),
        ({"layer": 4, "plus": "Paris", "minus": "Rome", "interventions": ""}, "no layer 4"),
        ({"plus": "Paris", "minus": "Paris", "interventions": ""}, "no direction"),
        ({"steps": 100}, "do not fit"),
    ],
)
def test_what_does_not_fit_the_model_is_told(changes: dict[str, object], told: str) -> None:
    with pytest.raises((InputError, EditError), match=told):
        generation(model(), replace(EDITED, **changes))  # type: ignore[arg-type]


def test_record_table_and_inputs_round_trip() -> None:
    result = result_of(replace(STEERED, temperature=0.7, seeds=(1, 2)))
    back = GenerationResult.from_json(result.to_json())
    assert back.inputs == result.inputs
    for name in ("default_ids", "edited_ids", "default_log_probabilities", "edited_log_probabilities", "kl"):
        np.testing.assert_array_equal(getattr(back, name), getattr(result, name))
    assert back.to_json() == result.to_json()
    frame = result.to_frame()
    assert len(frame) == 2 * 8 * 3  # both models' log-probabilities, and KL
    assert set(frame["unit"]) == {"nats"}
    with pytest.raises(InputError, match="damaged"):
        GenerationResult.from_json(result.to_json().replace('"default_stopped"', '"x"'))


def test_figures_mark_the_changed_tokens_only() -> None:
    result = result_of(STEERED)
    spec = generation_texts(result, 0)
    coloured = {(r["row"] % 2, r["position"]) for r in spec["datasets"]["tokens"]}
    grey = {(r["row"] % 2, r["position"]) for r in spec["datasets"]["missing"]}
    changed = set(np.flatnonzero(result.changed[0]).tolist())
    assert coloured == {(series, step) for series in (0, 1) for step in changed}
    assert coloured | grey == {(series, step) for series in (0, 1) for step in range(8)}
    assert not spec["datasets"]["rests"]
    figure = texts_figure(result, 0)
    assert "First different at step" in figure.caption
    assert len(figure.frame()) == 16
    assert len(kl_figure(result).frame()) == 8
    assert kl_lines(result)["datasets"]
