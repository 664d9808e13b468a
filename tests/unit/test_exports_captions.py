"""Captions say n, unit, zero or start, clipped share, corruption, window convention and model."""

from dataclasses import replace

import pytest

from mi_core.exports.captions import trace_caption, window_reach
from mi_core.exports.causal_trace import (
    cell_figure,
    curve_figure,
    head_figure,
    heatmap_figure,
    samples_figure,
    severed_figure,
)
from mi_core.exports.causal_trace_average import role_heatmap_figure, role_lines_figure
from mi_core.exports.references import BIBTEX, CAUSAL_TRACE, bibliography
from tests.examples import example_result
from tests.examples_average import example_average

KINDS = ("state", "attn", "mlp")


def test_a_trace_says_everything_that_a_reader_needs() -> None:
    said = heatmap_figure(example_result()).caption
    for part in (
        "“The Eiffel Tower is located in the city of” → ·Paris",
        "the clean residual state, attention output or MLP output", "into the corrupted run",
        "Gaussian noise of 3 standard deviations", "(0.41)", "tokens 2 to 4, marked *", "10 samples, seed 0",
        "P(·Paris) [probability], mean of 10 noise samples", "starts at the corrupted run (0.0834)",
        "clean run 0.93", "of 240 cells", "Model atlas (float32, weights 0123456789ab), Lantern 0.1.0.",
    ):  # fmt: skip
        assert part in said, part


def test_shares_and_differences_say_what_zero_means() -> None:
    result = example_result()
    assert "0 = corrupted run, 1 = clean run, not clipped" in trace_caption(
        result, "recovered_probability", KINDS
    )
    assert "0 = both tokens equally likely" in trace_caption(result, "logit_difference", KINDS)
    assert "0 = the same top token" in trace_caption(result, "top1_flip", KINDS)


@pytest.mark.parametrize(
    ("window", "convention", "reach"),
    [
        (1, "code", (0, 0)),
        (5, "code", (2, 2)),
        (5, "paper", (2, 2)),
        (10, "code", (5, 4)),
        (10, "paper", (4, 5)),
    ],
)
def test_windows_reach_as_in_romes_program_or_paper(window: int, convention, reach: tuple[int, int]) -> None:
    assert window_reach(window, convention) == reach


def test_even_windows_name_their_convention_and_states_have_none() -> None:
    result = example_result()
    windowed = replace(result, inputs=replace(result.inputs, window=4))
    assert (
        "attention and MLP: in layers l − 2 to l + 1 together (window of 4, the code's convention)"
        in trace_caption(windowed, "probability", KINDS)
    )
    assert "window" not in trace_caption(windowed, "probability", ("state",))


def test_what_was_not_run_is_counted() -> None:
    said = heatmap_figure(example_result(done_share=0.5)).caption
    assert "120 hatched cells were not run." in said


def test_token_replacement_and_noising_say_so() -> None:
    swapped = example_result(corrupted_prompt="The Space Needle is located in the city of")
    said = heatmap_figure(swapped).caption
    assert "Corrupted run: the prompt “The Space Needle is located in the city of”." in said
    assert "noise" not in said
    noising = replace(swapped, inputs=replace(swapped.inputs, direction="noising"))
    assert "the corrupted residual state, attention output or MLP output" in heatmap_figure(noising).caption
    assert "into the clean run" in heatmap_figure(noising).caption


def test_other_figures_say_their_n_and_place() -> None:
    result = example_result(("state", "state_mlp_severed", "head"))
    assert "n = 10" in curve_figure(result, kinds=["state"]).caption
    assert "token 4 ·Tower*" in severed_figure(result).caption
    assert "state, layer 3, 4 ·Tower*" in cell_figure(result, "state", 4, 3).caption
    assert "n = 10" in samples_figure(result, "state", 4, 3).caption
    assert (
        "single attention head (row) of one layer (column), at token 4 ·Tower" in head_figure(result).caption
    )


def test_averages_say_prompts_pooling_total_effect_and_bands() -> None:
    result = example_average(window=4)
    heat, lines = role_heatmap_figure(result).caption, role_lines_figure(result, share=True).caption
    assert "averaged over 12 prompts (made-up facts)" in heat
    assert "every token counts once" in heat
    assert "Average total effect (clean minus corrupted): 0." in heat
    assert "window of 4" in heat
    assert "Bands" not in heat
    assert "Bands: 95 % bootstrap over prompts (200 resamples)." in lines
    assert "share of the total effect" in lines


def test_long_prompts_do_not_fill_a_page() -> None:
    result = example_result()
    longer = replace(result, inputs=replace(result.inputs, prompt="word " * 1000))
    assert len(heatmap_figure(longer).caption) < 1200


def test_references_are_bibtex_with_equal_keys() -> None:
    for key, entry in BIBTEX.items():
        assert f"{{{key}," in entry
        assert entry.count("{") == entry.count("}")
    assert bibliography(CAUSAL_TRACE).count("@") == len(CAUSAL_TRACE)
    with pytest.raises(KeyError):
        bibliography(["unknown"])
