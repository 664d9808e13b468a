"""Interventions on features: identities, and numbers of the bare model with hooks written for these tests."""

from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mi_core.engine import build_model, observe, readout
from mi_core.model.model import LoadedModel
from mi_core.transcoders import (
    GraphInputs,
    InjectInputs,
    InjectResult,
    active_features,
    attribution_graph,
    inject,
)
from mi_core.transcoders.feature_edits import FeatureEdit, parse_feature_edits
from mi_core.transcoders.names import FeatureAt
from mi_core.transcoders.transcoder import Transcoder
from tests.engine.oracle import Oracle
from tests.tiny import VOCAB, hf_model
from tests.transcoders import MemorySource, tiny_clt, tiny_plt, use
from tests.words import word_tokenizer

PROMPT = "The capital of France is"
LIST = "L0F3@2:set=2,L1F4@all:ablate,L2F1@-1:add=1.5,L2F5@1+3:scale=-1,L3F2@1:suppress=2"
MIDDLE = {"gpt2": "ln_2", "llama": "post_attention_layernorm", "gemma2": "pre_feedforward_layernorm"}


@lru_cache(maxsize=16)
def model_of(name: str = "llama", kind: str = "clt", bos: bool = True) -> LoadedModel:
    model = build_model(hf_model(name), word_tokenizer(bos=bos, size=VOCAB))
    use(model, tiny_clt(model, density=0.5) if kind == "clt" else tiny_plt(model, density=0.5))
    return model


@lru_cache(maxsize=32)
def result_of(
    edits: str = LIST, frozen: str = "nothing", name: str = "llama", kind: str = "clt"
) -> InjectResult:
    inputs = InjectInputs(PROMPT, edits, frozen=frozen, distractor=" Rome", continuation=5)  # type: ignore[arg-type]
    return inject(model_of(name, kind), inputs)


def transcoder_of(name: str = "llama", kind: str = "clt") -> Transcoder:
    return model_of(name, kind).transcoders[""]


def ids_of(text: str) -> list[int]:
    return word_tokenizer(bos=True, size=VOCAB)(text)["input_ids"]


class Bare:
    """The untouched model; features are read and written by hooks in one pass, as it goes."""

    def __init__(
        self, name: str, transcoder: Transcoder, edits: tuple[FeatureEdit, ...], frozen: str
    ) -> None:
        self.name, self.edits, self.frozen, self.n_prompt = name, edits, frozen, 0
        assert isinstance(transcoder.source, MemorySource)
        self.source = transcoder.source
        self.found: dict[FeatureAt, tuple[float, float]] = {}
        self.patterns: dict[int, Tensor] = {}
        self.kept: dict[object, Tensor] = {}
        self.read: dict[int, Tensor] = {}

    def _activation(self, layer: int, index: int, x: Tensor) -> float:
        encoder = self.source.encoders[layer]
        pre = float(encoder.stored[index] @ x.float() + encoder.b_enc[index])
        low = 0.0 if encoder.threshold is None else float(encoder.threshold[index])
        return pre if pre > low else 0.0

    def logits(self, ids: list[int], n_prompt: int | None = None) -> Tensor:
        n_prompt = len(ids) if n_prompt is None else n_prompt
        baseline = self._pass(ids, edited=False, n_prompt=n_prompt)
        return self._pass(ids, edited=True, n_prompt=n_prompt) if self.edits else baseline

    def _pass(self, ids: list[int], *, edited: bool, n_prompt: int) -> Tensor:
        oracle = Oracle(hf_model(self.name))
        added = {layer: torch.zeros(len(ids), 32) for layer in range(4)}
        if edited and self.frozen != "nothing":
            for layer, pattern in self.patterns.items():

                def put(p: Tensor, pattern: Tensor = pattern) -> Tensor:
                    p = p.clone()
                    p[:, :, :n_prompt] = 0
                    p[:, :, :n_prompt, :n_prompt] = pattern[:, :, :n_prompt, :n_prompt]
                    return p

                oracle.probability[layer] = put
        elif not edited:
            for layer in range(4):
                oracle.probability[layer] = lambda p, layer=layer: self.patterns.__setitem__(layer, p) or p
        for layer, block in enumerate(oracle.blocks):
            middle = getattr(block, MIDDLE[self.name])
            middle.register_forward_pre_hook(
                lambda _m, args, layer=layer: self._at_middle(layer, args[0][0], added, edited, n_prompt)
            )
            write = block
            for part in oracle.mlp_write.split("."):
                write = getattr(write, part)
            write.register_forward_hook(
                lambda _m, _a, out, layer=layer: self._at_write(layer, out, added, edited)
            )
        if self.frozen == "everything":
            self._hold_norms(oracle, edited)
        with torch.no_grad():
            return oracle.hf(input_ids=torch.tensor([ids])).logits[0, -1].double()

    def _at_middle(
        self, layer: int, x: Tensor, added: dict[int, Tensor], edited: bool, n_prompt: int
    ) -> None:
        self.read[layer] = x
        if not edited:
            self.kept[("read", layer)] = x
            return
        seen = self.kept[("read", layer)] if self.frozen == "everything" else x
        for edit in self.edits:
            if edit.feature.layer != layer:
                continue
            whole = range(1, len(x)) if edit.positions is None else [p % n_prompt for p in edit.positions]
            for position in whole:
                now = self._activation(layer, edit.feature.index, seen[position])
                new = edit.new_activation(now)
                self.found[edit.feature.at(position)] = (now, new)
                rows = self.source.decoders[layer][edit.feature.index]
                for order, row in enumerate(rows):
                    added[layer + order][position] += (new - now) * row

    def _at_write(self, layer: int, out: Tensor, added: dict[int, Tensor], edited: bool) -> Tensor:
        if not edited:
            self.kept[("mlp", layer)] = out
            return out
        return (self.kept[("mlp", layer)] if self.frozen == "everything" else out) + added[layer]

    def _hold_norms(self, oracle: Oracle, edited: bool) -> None:
        """RMS norms as linear maps at the scale of the baseline."""
        for path, module in oracle.hf.named_modules():
            if not path.endswith("norm"):
                continue

            def hook(module: Any, args: Any, out: Tensor, path: str = path) -> Tensor:
                if not edited:
                    self.kept[path] = args[0]
                    return out
                scale = self.kept[path].square().mean(-1, keepdim=True) + module.variance_epsilon
                return module.weight * args[0] * scale.rsqrt()

            module.register_forward_hook(hook)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [("llama", "nothing"), ("gpt2", "nothing"), ("gemma2", "nothing"), ("llama", "attention"),
     ("gpt2", "attention"), ("llama", "everything")],
)  # fmt: skip
def test_the_numbers_are_those_of_the_bare_model(name: str, frozen: str) -> None:
    result, ids = result_of(LIST, frozen, name), ids_of(PROMPT)
    bare = Bare(name, transcoder_of(name), parse_feature_edits(LIST), frozen)
    after = bare.logits(ids).numpy()
    before = Bare(name, transcoder_of(name), (), frozen).logits(ids).numpy()
    read = [result.target.id, result.distractor.id if result.distractor else -1]
    near: Any = {"atol": 2e-5, "rtol": 2e-5}
    np.testing.assert_allclose(result.logits, np.stack([before, after])[:, read], **near)
    logs = [row - np.logaddexp.reduce(row) for row in (before, after)]
    np.testing.assert_allclose(result.log_probabilities, np.stack(logs)[:, read], **near)
    np.testing.assert_allclose(result.kl, float((np.exp(logs[0]) * (logs[0] - logs[1])).sum()), **near)
    assert result.ranks.tolist() == [[1 + int((row > row[token]).sum()) for token in read] for row in logs]
    tops = {int(token) for row in logs for token in np.argsort(-row)[:5]}
    assert set(result.top_ids.tolist()) == tops
    np.testing.assert_allclose(result.top_probabilities, np.exp(np.stack(logs))[:, result.top_ids], **near)
    told = dict(
        zip(
            result.edited_names,
            zip(result.activation_from.tolist(), result.activation_to.tolist(), strict=True),
            strict=True,
        )
    )
    assert told.keys() == bare.found.keys()
    for at, pair in bare.found.items():
        np.testing.assert_allclose(told[at], pair, atol=1e-5)
    assert all(check.passed for check in result.checks)
    assert result.kl > 1e-3


@pytest.mark.parametrize("frozen", ["nothing", "attention"])
def test_other_features_are_those_of_the_bare_model(frozen: str) -> None:
    result = result_of(LIST, frozen)
    bare = Bare("llama", transcoder_of(), parse_feature_edits(LIST), frozen)
    bare.logits(ids_of(PROMPT))
    changes = {}
    for layer in range(4):
        for position in range(1, 6):
            for index in range(12):
                at = FeatureAt(layer, index, position)
                kept = bare.kept[("read", layer)][position]
                pair = [bare._activation(layer, index, x) for x in (kept, bare.read[layer][position])]
                if at not in bare.found:
                    changes[at] = pair
    order = sorted(changes, key=lambda at: -abs(changes[at][1] - changes[at][0]))[:20]
    assert set(result.feature_names) == set(order)
    for at, pair in zip(result.feature_names, result.feature_activations.T, strict=True):
        np.testing.assert_allclose(pair, changes[at], atol=1e-5)
    counts = np.array(list(changes.values())) > 0
    assert result.n_active.tolist() == counts.sum(0).tolist()
    on, off = (counts[:, 1] & ~counts[:, 0]).sum(), (counts[:, 0] & ~counts[:, 1]).sum()
    assert result.n_switched.tolist() == [on, off]


@pytest.mark.parametrize("frozen", ["nothing", "attention"])
@pytest.mark.parametrize("edits", [LIST, "L1F4@all:add=2,L2F3@2:set=1", "L0F3@2:set=2"])
def test_continuations_are_those_of_the_bare_model(edits: str, frozen: str) -> None:
    result, ids = result_of(edits, frozen), ids_of(PROMPT)
    end = hf_model("llama").config.eos_token_id
    for told, listed in (
        (result.baseline_ids, ()),
        (result.edited_ids, parse_feature_edits(edits)),
    ):
        grown = list(ids)
        for _ in range(5):
            grown.append(int(Bare("llama", transcoder_of(), listed, frozen).logits(grown, len(ids)).argmax()))
            if grown[-1] == end:
                break
        assert told.tolist() == grown[len(ids) :]


def test_a_set_feature_is_at_its_value_though_earlier_edits_moved_it() -> None:
    alone, both = result_of("L2F1@3:set=2"), result_of("L0F3@2:set=4,L2F1@3:set=2")
    assert alone.activation_from[0] != pytest.approx(both.activation_from[1], abs=1e-3)
    assert alone.activation_to.tolist() == [2.0]
    assert both.activation_to[1] == pytest.approx(2.0)


@pytest.mark.parametrize("frozen", ["nothing", "attention", "everything"])
def test_no_edit_is_the_baseline_bit_for_bit(frozen: str) -> None:
    result = result_of("", frozen)
    assert result.kl == 0
    assert np.array_equal(result.logits[0], result.logits[1])
    assert [check.passed for check in result.checks] == [True]
    assert len(result.edited_names) == len(result.feature_names) == len(result.pushed_layers) == 0


def test_setting_what_is_there_and_factor_one_change_nothing() -> None:
    model, ids = model_of(), ids_of(PROMPT)
    active = active_features(model, transcoder_of(), ids)
    at = FeatureAt(int(active.layer[3]), int(active.feature[3]), int(active.position[3]))
    assert result_of(f"{at.feature.text}@all:scale=1").kl == 0
    assert result_of(f"{at.text}:set={active.value(at)}").kl == pytest.approx(0, abs=1e-9)
    # ablating what is nowhere active changes nothing, and that is said
    idle = next(FeatureAt(1, index, 2) for index in range(12) if active.value(FeatureAt(1, index, 2)) == 0)
    result = result_of(f"{idle.text}:ablate")
    assert result.kl == 0
    assert "changes nothing" in " ".join(result.warnings)


def test_ablate_is_set_to_zero_and_suppress_is_a_negative_add() -> None:
    for one, other in (
        ("L1F4@3:ablate", "L1F4@3:set=0"), ("L1F4@3:scale=0", "L1F4@3:ablate"),
        ("L1F4@all:suppress=2", "L1F4@all:add=-2"),
        ("L1F4@2+3:add=1,L1F4@3:add=1", "L1F4@2:add=1,L1F4@3:add=2"),
    ):  # fmt: skip
        a, b = result_of(one), result_of(other)
        np.testing.assert_allclose(a.logits, b.logits, atol=1e-6)
        assert a.edited_ids.tolist() == b.edited_ids.tolist()


def test_the_order_of_the_list_does_not_matter() -> None:
    turned = ",".join(reversed(LIST.split(",")))
    np.testing.assert_allclose(result_of(turned).logits, result_of(LIST).logits, atol=1e-6)


def test_direct_effects_are_linear_and_add_up() -> None:
    base = result_of("", "everything").logits[0]
    one, other = "L0F3@2:add=1", "L2F1@4:add=-2"
    effects = [result_of(text, "everything").logits[1] - base for text in (one, other, f"{one},{other}")]
    np.testing.assert_allclose(effects[0] + effects[1], effects[2], atol=1e-6)
    tripled = result_of("L0F3@2:add=3", "everything").logits[1] - base
    np.testing.assert_allclose(3 * effects[0], tripled, atol=1e-6)
    # however large: nothing answers
    assert result_of("L0F3@2:add=3").logits[1] - base != pytest.approx(tripled, abs=1e-3)


def test_a_direct_effect_in_the_last_layer_is_its_row_through_norm_and_unembedding() -> None:
    model, ids = model_of(), ids_of(PROMPT)
    result = result_of("L3F2@-1:add=1.5", "everything")
    row = transcoder_of().rows(3, torch.tensor([2]))[0, 0]
    stream = observe(model, ids, ("resid_post",))["resid_post", 3]
    read = [result.target.id, result.distractor.id if result.distractor else -1]
    way = readout(model, stream, read)
    expected = way.parts((1.5 * row).expand(len(ids), -1))[-1]
    np.testing.assert_allclose(result.logits[1] - result.logits[0], expected.numpy(), atol=1e-5)


def test_nothing_reaches_tokens_and_layers_before_the_edit() -> None:
    result = result_of("L2F1@4:set=9")
    assert result.feature_positions.min() >= 4
    assert result.feature_layers.min() >= 3  # what layer 2 writes is read from layer 3 on
    assert result.pushed_layers.tolist() == [2, 3]


def test_a_per_layer_transcoder_writes_to_its_own_layer_only() -> None:
    result = result_of("L1F4@3:add=2", kind="plt")
    assert result.pushed_layers.tolist() == [1]
    row = transcoder_of(kind="plt").rows(1, torch.tensor([4]))[0, 0]
    np.testing.assert_allclose(result.delta_norms, [[2 * float(row.norm())]], rtol=1e-6)
    assert result_of("L1F4@3:add=2", "everything", kind="plt").kl > 0


def test_the_push_is_measured_beside_the_stream() -> None:
    model, ids, result = model_of(), ids_of(PROMPT), result_of("L1F4@3:add=2,L2F1@3:suppress=1")
    first, second = (transcoder_of().rows(layer, torch.tensor([f]))[0] for layer, f in ((1, 4), (2, 1)))
    added = torch.stack([2 * first[0], 2 * first[1] - second[0], 2 * first[2] - second[1]])
    stream = torch.stack([observe(model, ids, ("resid_post",))["resid_post", m][3] for m in (1, 2, 3)])
    assert result.pushed_layers.tolist() == [1, 2, 3]
    np.testing.assert_allclose(result.delta_norms[:, 0], added.norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(result.sum_norms[:, 0], added.cumsum(0).norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(result.residual_norms[:, 0], stream.norm(dim=1), rtol=1e-6)
    np.testing.assert_allclose(result.delta_ratios[:, 0], added.norm(dim=1) / stream.norm(dim=1), rtol=1e-5)


def test_all_tokens_leave_out_the_special_one_unless_it_is_shown() -> None:
    model = model_of()
    hidden = inject(model, InjectInputs(PROMPT, "L1F4@all:add=1", continuation=0))
    shown = inject(model, InjectInputs(PROMPT, "L1F4@all:add=1", continuation=0, show_bos=True))
    assert hidden.edited_positions.tolist() == [1, 2, 3, 4, 5]
    assert shown.edited_positions.tolist() == [0, 1, 2, 3, 4, 5]
    assert "special token" in " ".join(shown.warnings)


@pytest.mark.parametrize("kind", ["clt", "plt"])
def test_doubling_with_everything_frozen_changes_every_target_by_its_edge(kind: str) -> None:
    model = model_of(kind=kind)
    graph = attribution_graph(model, GraphInputs(PROMPT, answer=" Paris", distractor=" Rome"))
    numbers = zip(*(graph.node_layer, graph.node_feature, graph.node_position), strict=True)
    names = [FeatureAt(*map(int, one)) for one in numbers]
    sources = [node for node in np.flatnonzero(graph.node_kind == 0).tolist() if names[node].layer < 2]
    compared = 0
    for source in sources[:4]:
        edits = f"{names[source].text}:scale=2"
        inputs = InjectInputs(
            PROMPT, edits, frozen="everything", answer=" Paris", distractor=" Rome", features=200
        )
        result = inject(model, inputs)
        changes = np.diff(result.feature_activations, axis=0)[0].tolist()
        changed = dict(zip(result.feature_names, changes, strict=True))
        for row, target in enumerate(graph.row_node.tolist()):
            edge = float(graph.edges[row, source])
            if graph.node_kind[target] == 3:
                assert result.logit_difference is not None
                difference = float(np.diff(result.logit_difference)[0])
                assert difference == pytest.approx(edge, abs=1e-4)
            elif graph.node_activation[target] + edge > 0.5:  # below its threshold it says 0, whatever it got
                assert changed.get(names[target], 0.0) == pytest.approx(edge, abs=1e-4)
                compared += abs(edge) > 1e-2
    assert compared > 10
