"""Features on CUDA are the features of the CPU; skipped with its reason where there is no CUDA device."""

from dataclasses import replace

import pytest
import torch

from mi_core import load_model
from mi_core.model.model import LoadedModel
from mi_core.model.spec import ModelSpec
from mi_core.transcoders import (
    GraphInputs,
    InjectInputs,
    active_features,
    attribution_graph,
    fit,
    inject,
    load_transcoder,
)

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
PROMPT = "The Eiffel Tower is located in the city of"


@pytest.fixture(scope="module")
def models() -> tuple[LoadedModel, LoadedModel]:
    spec = ModelSpec("atlas", device="cpu")
    return load_model(spec), load_model(replace(spec, device="cuda"))


def test_encoding_and_fit_agree(models: tuple[LoadedModel, LoadedModel]) -> None:
    ids = models[0].tokenizer(PROMPT)["input_ids"]
    found = [active_features(model, load_transcoder(model), ids) for model in models]
    assert found[1].activation.device.type == "cuda"
    # A feature within rounding of its threshold may be on one side here and on the other there.
    named = [
        set(zip(one.layer.tolist(), one.position.tolist(), one.feature.tolist(), strict=True))
        for one in found
    ]
    assert len(named[0] ^ named[1]) <= 2
    fits = [fit(model, load_transcoder(model), ids) for model in models]
    torch.testing.assert_close(fits[0].unexplained, fits[1].unexplained, rtol=1e-2, atol=1e-4)


def test_graphs_and_interventions_agree(models: tuple[LoadedModel, LoadedModel]) -> None:
    graphs = [attribution_graph(model, GraphInputs(PROMPT)) for model in models]
    assert all(float(abs(graph.residual).max()) < 1e-4 for graph in graphs)
    total = [float(graph.edges[0].sum()) for graph in graphs]
    assert total[0] == pytest.approx(total[1], rel=1e-2)
    edits = "L0F521@5:ablate"
    changes = [inject(model, InjectInputs(PROMPT, edits)).to_frame() for model in models]
    assert len(changes[0]) == len(changes[1])
