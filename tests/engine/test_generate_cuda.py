"""Generation on CUDA as on the CPU; skipped with its reason where there is no CUDA device."""

import pytest
import torch

from mi_core.engine import Edit, build_model, generate
from tests.tiny import FAMILY_NAMES, hf_model, tiny, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_texts_on_cuda_are_those_of_the_cpu(name: str) -> None:
    on_cpu, on_gpu = tiny(name), build_model(hf_model(name).to("cuda"))
    prompt = tokens(n_pos=7)[0].tolist()
    edits = [Edit("z", 1, "zero", heads=(2,)), Edit("pattern", 2, "mask", keys=(1,))]
    got, want = (
        generate(model, prompt, steps=6, edits=edits, stop=(), keep_logits=True) for model in (on_gpu, on_cpu)
    )
    assert (got.method, got.ids) == ("cached", want.ids)
    assert got.logits is not None
    assert want.logits is not None
    torch.testing.assert_close(got.logits, want.logits, atol=1e-6, rtol=0)
