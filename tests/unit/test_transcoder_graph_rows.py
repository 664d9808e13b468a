"""Rows of attribution graphs: two implementations, the sum rule, and what doubling a node does."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.hooks import RemovableHandle

from mi_core.engine import Edit, observe, run
from mi_core.model.model import LoadedModel
from mi_core.transcoders import Hook, Transcoder, frozen_pass
from mi_core.transcoders.graph_parts import GraphParts, Target, graph_parts
from mi_core.transcoders.graph_rows import feature_rows, logit_rows
from mi_core.transcoders.linear_autograd import autograd_rows
from tests.tiny import tiny, tokens
from tests.transcoders import tiny_clt, tiny_plt

IDS = tokens()[0].tolist()
TARGETS = (Target((5,), "a", 0.5, 0.5), Target((7, 9), "b - c", 1.0, 0.2))
CLOSE = 5e-6  # transcoders, and the norms of transformers, compute in float32

CASES = [
    ("llama", "clt", Hook("resid_mid")),
    ("gpt2", "clt", Hook("resid_mid")),
    ("gemma2", "clt", Hook("resid_mid")),
    ("qwen3", "clt", Hook("mlp_in")),
    ("gemma3_text", "clt", Hook("resid_mid", normalised=True)),
    ("gpt_neox", "clt", Hook("mlp_in")),
    ("phi", "plt", Hook("mlp_in")),
    ("olmo2", "plt", Hook("resid_mid")),
    ("gpt2", "plt", Hook("mlp_in")),
    ("phi3", "plt", Hook("resid_mid")),
    ("starcoder2", "plt", Hook("resid_mid", normalised=True)),
    ("gpt_neox_serial", "plt", Hook("resid_pre")),
]


def made(
    name: str, kind: str, hook: Hook, show_bos: bool = True
) -> tuple[LoadedModel, Transcoder, GraphParts]:
    model = tiny(name)
    # A parallel family has no resid_mid to fit a tiny transcoder to; any weights of that width will do.
    fitted = tiny("llama") if model.structure.parallel else model
    transcoder = replace((tiny_clt if kind == "clt" else tiny_plt)(fitted), reads=hook)
    frozen = frozen_pass(model, IDS, transcoder)
    return model, transcoder, graph_parts(model, transcoder, frozen, TARGETS, show_bos=True)


@pytest.mark.parametrize(("name", "kind", "hook"), CASES)
def test_both_implementations_agree_and_rows_add_up_to_the_models_own_numbers(
    name: str, kind: str, hook: Hook
) -> None:
    model, transcoder, parts = made(name, kind, hook)
    assert parts.n_features > 40
    some = torch.randperm(parts.n_features, generator=torch.Generator().manual_seed(0))[:6]
    features, logits = feature_rows(parts, some), logit_rows(parts)
    edges = torch.cat([features.edges, logits.edges])
    remainder = torch.cat([features.remainder, logits.remainder])
    again = autograd_rows(model, transcoder, parts, some)
    torch.testing.assert_close(edges, again.edges, rtol=1e-5, atol=CLOSE)
    torch.testing.assert_close(remainder, again.remainder, rtol=1e-5, atol=CLOSE)
    values = torch.cat([parts.active.activation[some], parts.logit_value]).to(edges)
    assert float((values - edges.sum(1) - remainder).abs().max()) < 1e-5
    assert float(edges.abs().max()) > 0.1


@pytest.mark.parametrize(("name", "kind", "hook"), CASES[:1] + CASES[6:9])
def test_doubling_a_node_with_everything_held_changes_every_target_by_exactly_its_edge(
    name: str, kind: str, hook: Hook
) -> None:
    _, _, parts = made(name, kind, hook)
    everything = feature_rows(parts, torch.arange(parts.n_features)).edges
    frozen, first_error = parts.frozen, parts.n_features
    logits = logit_rows(parts).edges
    nodes = [*range(0, parts.n_features, 9), first_error + 3, parts.first_token - 1]
    for node in nodes:
        deltas = written(parts, node)
        pushed = frozen.push(deltas)
        layers, positions = parts.active.layer.tolist(), parts.active.position.tolist()
        before = pushed.resid_mid is None or hook.site == "resid_pre"
        seen = pushed.resid_pre if before else pushed.resid_mid
        assert seen is not None
        moved = torch.stack([
            seen[layer][0, position] @ parts.read[index]
            for index, (layer, position) in enumerate(zip(layers, positions, strict=True))
        ])  # fmt: skip
        torch.testing.assert_close(moved, everything[:, node], rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(
            pushed.final[0, -1] @ parts.logit_read.T, logits[:, node], rtol=1e-6, atol=1e-8
        )
    token = torch.zeros_like(frozen.embed)[None]
    token[0, 2] = frozen.embed[2]
    moved = frozen.push({}, token).final[0, -1] @ parts.logit_read.T
    torch.testing.assert_close(moved, logits[:, parts.first_token + 2], rtol=1e-6, atol=1e-8)


def written(parts: GraphParts, node: int) -> dict[int, torch.Tensor]:
    """What a node writes, taken out of the parts by hand."""
    found = {}
    for layer, writes in enumerate(parts.writes):
        for position, (vectors, columns) in enumerate(zip(writes.vectors, writes.columns, strict=True)):
            for vector, column in zip(vectors, columns.tolist(), strict=True):
                if column == node:
                    found.setdefault(layer, torch.zeros_like(parts.frozen.embed)[None])[0, position] += vector
    return found


def test_what_nodes_and_constants_write_is_the_mlp_output() -> None:
    _, _, parts = made("llama", "clt", Hook("resid_mid"))
    for layer, writes in enumerate(parts.writes):
        told = torch.stack([vectors.sum(0) for vectors in writes.vectors])
        torch.testing.assert_close(told, parts.frozen.mlp_out[layer], rtol=1e-6, atol=1e-6)


def test_edges_point_upwards_and_forwards_only() -> None:
    _, _, parts = made("llama", "clt", Hook("resid_mid"))
    edges = feature_rows(parts, torch.arange(parts.n_features)).edges
    layer, position = parts.active.layer, parts.active.position
    own = edges[:, : parts.n_features]
    upstream = (layer[None] < layer[:, None]) & (position[None] <= position[:, None])
    assert not own[~upstream].any()
    assert own[upstream].ne(0).float().mean() > 0.9
    # A row does not depend on which others are computed with it.
    alone = feature_rows(parts, torch.tensor([parts.n_features - 1, 3])).edges
    torch.testing.assert_close(alone, edges[[parts.n_features - 1, 3]], rtol=1e-9, atol=1e-12)


def test_a_partial_transcoder_leaves_whole_mlps_as_errors() -> None:
    model = tiny("llama")
    whole = tiny_plt(model, skip=False)
    partial = replace(whole, n_features={1: 12, 3: 12})
    parts = graph_parts(model, partial, frozen_pass(model, IDS, partial), TARGETS, show_bos=True)
    assert set(parts.active.layer.tolist()) == {1, 3}
    rows = feature_rows(parts, torch.arange(parts.n_features))
    values = parts.active.activation.to(rows.edges)
    assert float((values - rows.edges.sum(1) - rows.remainder).abs().max()) < 1e-5
    errors = parts.writes[0].vectors[4][-2]
    torch.testing.assert_close(errors, parts.frozen.mlp_out[0][4])


def held_scales(model: LoadedModel, clean: dict[int, torch.Tensor], record: bool) -> list[RemovableHandle]:
    """Hooks on the model's own norms: note what enters them, or give their output at the scale of that."""

    def hook(module: Any, args: tuple[torch.Tensor, ...], _output: Any) -> torch.Tensor | None:
        if record:
            clean[id(module)] = args[0]
            return None
        before = clean[id(module)]
        if isinstance(module, torch.nn.LayerNorm):
            scale = (before.var(-1, unbiased=False, keepdim=True) + module.eps).sqrt()
            return module.weight * (args[0] - args[0].mean(-1, keepdim=True)) / scale + module.bias
        scale = (before.square().mean(-1, keepdim=True) + module.variance_epsilon).sqrt()
        return module.weight * args[0] / scale

    norms = [one for one in model.hf.modules() if "Norm" in type(one).__name__]
    return [one.register_forward_hook(hook) for one in norms]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_doubling_a_feature_in_the_model_itself_with_everything_held_adds_exactly_its_edges(
    name: str,
) -> None:
    """No frozen pass here: the model runs, its patterns, norm scales and MLP outputs put in by hand."""
    model, transcoder, parts = made(name, "clt", Hook("resid_mid"))
    everything, logits = feature_rows(parts, torch.arange(parts.n_features)).edges, logit_rows(parts).edges
    seen = observe(model, IDS, ("pattern", "mlp_out"))
    active = parts.active
    patterns = {layer: seen["pattern", layer].clone()[None] for layer in range(4)}
    clean: dict[int, torch.Tensor] = {}

    def run_held(node: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        outputs = {layer: seen["mlp_out", layer].clone() for layer in range(4)}
        if node is not None:
            layer, position = int(active.layer[node]), int(active.position[node])
            rows = transcoder.rows(layer, active.feature[[node]])[0].double()
            for shift, row in enumerate(rows):
                outputs[layer + shift][position] += float(active.activation[node]) * row
        edits = [Edit("mlp_out", layer, "set", value=value[None]) for layer, value in outputs.items()]
        edits += [Edit("pattern", layer, "set", value=pattern) for layer, pattern in patterns.items()]
        done = run(model, torch.tensor([IDS]), edits=edits, capture=["resid_mid"])
        pre = [
            done["resid_mid", int(layer)][0, int(position)]
            @ transcoder.encoder(int(layer)).stored[int(feature)].double()
            for layer, position, feature in zip(active.layer, active.position, active.feature, strict=True)
        ]
        last = done.logits[0, -1]
        return torch.stack(pre), torch.stack([last[5] - last.mean(), last[7] - last[9]])

    handles = held_scales(model, clean, record=True)
    run(model, torch.tensor([IDS]))
    for handle in handles:
        handle.remove()
    handles = held_scales(model, clean, record=False)
    try:
        before = run_held(None)
        for node in range(0, parts.n_features, 17):
            after = run_held(node)
            torch.testing.assert_close(after[0] - before[0], everything[:, node], rtol=1e-5, atol=CLOSE)
            torch.testing.assert_close(after[1] - before[1], logits[:, node], rtol=1e-5, atol=CLOSE)
    finally:
        for handle in handles:
            handle.remove()
