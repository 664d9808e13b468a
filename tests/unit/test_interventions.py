"""Interventions: text form, and edits that do what the text says, against hooks on the bare model."""

import pytest
import torch

from mi_core.analyses.interventions import (
    REFERENCES,
    Intervention,
    Reference,
    compile_edits,
    format_interventions,
    parse_interventions,
    reference_of,
)
from mi_core.engine import build_model, run
from mi_core.errors import InputError
from tests.engine.oracle import Oracle
from tests.tiny import VOCAB, hf_model, tiny, tokens
from tests.two_passes import agree
from tests.words import word_tokenizer

LIST = (
    "L1H2:zero,L1H2@3+4:mean,L1H3:resample,L1H0:scale=0.5,L3attn:zero,L2mlp@7:mean,L0R@5:resample,L3N10:0,"
    "L3N5:-2.5,L3N7:mean,e8-2@L1H2,e8-2@L1H2+L2H3,e8-3@L1,e8-4@all,r7@L1H2,c2@L1H2,c5@all:scale=0.5,"
    "e8-1@L1H2:scale=2,e8-0@L2H1:set=0.7"
)
IDS = tuple(tokens(1, 9)[0].tolist())
OTHER = tuple(tokens(1, 9, seed=7)[0].tolist())


def reference(n_pos: int = 9) -> Reference:
    rows = tuple(tuple(tokens(1, n_pos, seed=10 + seed)[0].tolist()) for seed in range(8))
    return Reference(rows, OTHER)


def logits(model, text: str, given: Reference | None = None) -> torch.Tensor:
    edits = compile_edits(model, IDS, parse_interventions(text), given)
    return run(model, torch.tensor([IDS]), edits=edits).logits


# --- text ---


def test_the_list_survives_a_round_trip() -> None:
    found = parse_interventions(LIST)
    assert len(found) == 19
    assert format_interventions(found) == LIST
    assert parse_interventions(format_interventions(found)) == found
    assert parse_interventions(" , L1H2:zero ,, ") == parse_interventions("L1H2:zero")
    assert parse_interventions("") == ()
    assert parse_interventions("e3-1@L1:cut")[0].text == "e3-1@L1"


@pytest.mark.parametrize("value", [0.1, -0.0, 1e-6, 123456.789, 1 / 3, 1e6])
def test_values_come_back_exactly(value: float) -> None:
    one = Intervention("neuron", "hold", ((3, None),), value, neuron=5)
    assert parse_interventions(one.text)[0].value == value


def test_parts_mean_what_the_text_says() -> None:
    head, edge, neuron = parse_interventions("L1H2@3+4:mean,e14-2@L1H2+L3:set=0.7,L3N102:0")
    assert head == Intervention("head", "mean", ((1, 2),), positions=(3, 4))
    assert edge == Intervention("edge", "set", ((1, 2), (3, None)), 0.7, query=14, key=2)
    assert neuron == Intervention("neuron", "hold", ((3, None),), 0.0, neuron=102)


BAD = [
    "x", "L1H2", "L1H2:", "L1H2:boom", "e2-1@", "e2-1@L1:foo", "L1H2:0.5", "r3@L1:scale=2", "e1-0@L1:set=2",
    "e1-0@L1H2+L1H2", "e5-@L1", "c@all", ":", "@", "r", "e", "L1H2@3+3:zero", "e1-0@L1:scale=-1",
    "L1H2:scale=nan", "L1N2:resample:mean", "<script>", "L1H2:zero;rm", "L" + "9" * 5000 + "H1:zero",
    "e1-0@L1:set=1e-1", "L3N1:9999999", "e1-0@all+L1", "L1attn@:zero",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_other_texts_are_refused_naming_the_piece(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_interventions(f"L0H0:zero,{text}")
    assert text[:40] in str(caught.value)
    assert len(str(caught.value)) < 350


def test_what_is_there_twice_or_too_often_is_refused() -> None:
    with pytest.raises(InputError, match="L1H2:zero is in the list twice"):
        parse_interventions("L1H2:zero,L0H0:zero, L1H2:zero")
    with pytest.raises(InputError, match="too long"):
        parse_interventions(",".join(f"L0N{n}:0" for n in range(201)))


# --- edits against the bare model ---


def by_hook(name: str, kind: str, layer: int, change) -> torch.Tensor:
    oracle = Oracle(hf_model(name))
    oracle.shape = (1, 9)
    return oracle.logits(torch.tensor([IDS]), [(kind, layer, change)])


def part(index: slice, value) -> object:
    def change(x: torch.Tensor) -> torch.Tensor:
        x[..., index] = value(x[..., index])
        return x

    return change


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_parts_are_changed_as_by_hooks(name: str) -> None:
    model = tiny(name)
    width = model.dims.d_head
    cases = [
        ("L1H2:zero", "z", 1, part(slice(2 * width, 3 * width), torch.zeros_like)),
        ("L1H2:scale=0.5", "z", 1, part(slice(2 * width, 3 * width), lambda x: x / 2)),
        ("L3attn:zero", "attn_out", 3, torch.zeros_like),
        ("L2mlp:zero", "mlp_out", 2, torch.zeros_like),
        ("L1R:scale=2", "block_output", 1, lambda x: 2 * x),
        ("L3N10:-2.5", "mlp_post", 3, part(slice(10, 11), lambda x: torch.full_like(x, -2.5))),
    ]
    for text, kind, layer, change in cases:
        expected = by_hook(name, kind, layer, change)
        torch.testing.assert_close(logits(model, text), expected, atol=1e-10, rtol=0, msg=text)


def cut(*edges: tuple[int, int, int]):
    """Square function of the oracle: forbids (head, query, key)."""

    def change(s: torch.Tensor, allowed: torch.Tensor):
        allowed = allowed.clone()
        for head, query, key in edges:
            allowed[:, head, query, key] = False
        return s, allowed

    return change


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "mistral"])
def test_edges_rows_and_columns_are_cut_as_by_hand(name: str) -> None:
    """Before the softmax, after Gemma 2's softcap; a fully cut row is zero."""
    model, heads = tiny(name), range(4)
    cases = {
        "e8-6@L1H2": {1: [(2, 8, 6)]},
        "e8-6@L1H2+L2H3": {1: [(2, 8, 6)], 2: [(3, 8, 6)]},
        "e8-6@L1": {1: [(head, 8, 6) for head in heads]},
        "e8-6@all": {layer: [(head, 8, 6) for head in heads] for layer in range(4)},
        "r7@L1H2": {1: [(2, 7, key) for key in range(8)]},
        "c5@L1H2": {1: [(2, query, 5) for query in range(5, 9)]},
        "c0@L0": {0: [(head, query, 0) for head in heads for query in range(9)]},
    }
    for text, wanted in cases.items():
        oracle = Oracle(hf_model(name))
        for layer, edges in wanted.items():
            oracle.square[layer] = cut(*edges)
        expected = oracle.logits(torch.tensor([IDS]), [])
        torch.testing.assert_close(logits(model, text), expected, atol=1e-10, rtol=0, msg=text)


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_a_cut_edge_has_exactly_zero_attention_and_a_fully_cut_row_is_zero_and_counted(name: str) -> None:
    model = tiny(name)
    edits = compile_edits(model, IDS, parse_interventions("e8-6@L1H2,r7@L2H1"))
    done = run(model, torch.tensor([IDS]), edits=edits, capture=["pattern"])
    assert done["pattern", 1][0, 2, 8, 6] == 0
    torch.testing.assert_close(
        done["pattern", 1].sum(-1), torch.ones(1, 4, 9, dtype=torch.float64), atol=1e-12, rtol=0
    )
    assert (done["pattern", 2][0, 1, 7] == 0).all()
    assert done.cut_rows == 1
    assert done.logits.isfinite().all()


def test_no_weight_is_a_cut_and_an_edge_that_is_set_has_exactly_its_value() -> None:
    model = tiny("llama")
    assert agree(logits(model, "e8-6@L1H2:scale=0"), logits(model, "e8-6@L1H2"))
    text = "e8-6@L1:set=0.7,e8-5@L1H2:set=0.25,e8-4@L1H3:scale=3"
    edits = compile_edits(model, IDS, parse_interventions(text))
    pattern = run(model, torch.tensor([IDS]), edits=edits, capture=[("pattern", 1)])["pattern", 1][0]
    assert (pattern[:, 8, 6] == torch.tensor(0.7, dtype=torch.float64)).all()
    assert pattern[2, 8, 5] == 0.25
    torch.testing.assert_close(pattern.sum(-1), torch.ones(4, 9, dtype=torch.float64), atol=1e-12, rtol=0)


def test_the_order_of_the_list_does_not_matter() -> None:
    model, given = tiny("gemma2"), reference()
    pieces = LIST.replace("L1H2:zero,", "").split(",")
    one = logits(model, ",".join(pieces), given)
    assert agree(one, logits(model, ",".join(reversed(pieces)), given))


def test_an_empty_list_is_the_baseline() -> None:
    model = tiny("llama")
    assert compile_edits(model, IDS, ()) == []
    assert agree(logits(model, ""), run(model, torch.tensor([IDS])).logits)


# --- mean and resample ---


@pytest.mark.parametrize("n_pos", [9, 6])
def test_the_mean_is_the_one_worked_out_by_hand(n_pos: int) -> None:
    """Per position where all reference prompts are as long as the prompt, else over all positions."""
    model, given = tiny("llama"), reference(n_pos)
    oracle, width = Oracle(hf_model("llama")), model.dims.d_head
    oracle.shape = (1, n_pos)
    seen: list[torch.Tensor] = []

    def note(x: torch.Tensor) -> torch.Tensor:
        seen.append(x.clone())
        return x

    for ids in given.mean_ids:
        oracle.logits(torch.tensor([ids]), [("z", 1, note)])
    if n_pos == 9:
        mean = torch.stack([value[0] for value in seen]).sum(0) / 8
    else:
        mean = torch.cat([value[0] for value in seen]).mean(0).expand(9, -1)
    head = slice(2 * width, 3 * width)

    def change(x: torch.Tensor) -> torch.Tensor:
        x[0, :, head] = mean[:, head]
        return x

    def at_two(x: torch.Tensor) -> torch.Tensor:
        x[0, [3, 5], head] = mean[[3, 5], head]
        return x

    for text, wanted in (("L1H2:mean", change), ("L1H2@3+5:mean", at_two)):
        expected = by_hook("llama", "z", 1, wanted)
        torch.testing.assert_close(logits(model, text, given), expected, atol=1e-10, rtol=0)


def test_resampling_everything_after_a_layer_gives_prompt_b_and_from_the_prompt_itself_nothing() -> None:
    model = tiny("gpt2")
    own = Reference(reference().mean_ids, IDS)
    base = run(model, torch.tensor([IDS])).logits
    other = run(model, torch.tensor([OTHER])).logits
    torch.testing.assert_close(logits(model, "L3R:resample", reference()), other, atol=1e-12, rtol=0)
    torch.testing.assert_close(logits(model, "L1H2:resample,L2N3:resample", own), base, atol=1e-12, rtol=0)


# --- what does not fit ---


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("L4H0:zero", "L4H0:zero does not fit: there is no layer 4; they run from 0 to 3"),
        ("L1H4:zero", "no head 4"),
        ("L1N128:0", "no neuron 128"),
        ("L1H1@9:zero", "no token 9"),
        ("e9-1@L1", "no query 9"),
        ("c9@all", "no key 9"),
        ("e2-5@L1H2", "e2-5@L1H2 is an edge from the future"),
        ("L1H2:mean", "L1H2:mean needs reference prompts"),
        ("L1H2:resample", "L1H2:resample needs prompt B"),
        ("L1H2:zero,L1H2@3:scale=2,L1H2@3:mean", "L1H2:zero and L1H2@3:mean give the same activation"),
        ("e8-6@L1:set=0.7,e8-6@L1H2:set=0.2", "set the same edge"),
        ("e8-6@L1H2:set=0.7,e8-5@L1H2:set=0.7", "cannot be set to 1.4 in all"),
        ("e8-6@L1H2:set=0.7,c6@all", "cut and set at once"),
        ("e0-0@L1:set=0.5", "token 0 reads only itself"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(text: str, match: str) -> None:
    given = reference() if match.startswith("L1H2:zero and") else None
    with pytest.raises(InputError, match=match):
        compile_edits(tiny("gpt2"), IDS, parse_interventions(text), given)


def test_prompt_b_of_another_length_is_refused() -> None:
    given = Reference((), OTHER[:7])
    with pytest.raises(InputError, match="the prompt has 9 tokens, prompt B 7"):
        compile_edits(tiny("gpt2"), IDS, parse_interventions("L1H2:resample"), given)


def test_named_references_have_enough_prompts_and_become_tokens() -> None:
    model = build_model(hf_model("gpt2"), word_tokenizer(size=VOCAB))
    for name, prompts in REFERENCES.items():
        assert len(set(prompts)) >= 8
        given = reference_of(model, name, second_prompt="The city of Paris")
        assert len(given.mean_ids) == len(prompts)
        assert given.resample_ids is not None
        assert len(given.resample_ids) == 4
    with pytest.raises(InputError, match="no reference set 'nobody'"):
        reference_of(model, "nobody")
