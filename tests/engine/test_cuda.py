"""The same numbers on CUDA as on the CPU; skipped with its reason where there is no CUDA device."""

import numpy as np
import pytest
import torch

from mi_core.engine import Base, Edit, Variant, build_model, gradients, observe, readout, run, sweep, unembed
from tests.engine.test_sweep import N_POS, N_ROWS, every_kind, last_logits, noise
from tests.tiny import FAMILY_NAMES, hf_model, tiny, tokens

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_sweeps_on_cuda_equal_full_recompute_on_the_cpu(name: str) -> None:
    on_cpu, on_gpu = tiny(name), build_model(hf_model(name).to("cuda"))
    assert on_gpu.report.passed
    base = Base(tokens(1, N_POS).repeat(N_ROWS, 1), (noise(on_cpu),))
    variants = every_kind(on_cpu)
    got = sweep(on_gpu, base, variants, read=last_logits, method="shared").values["logits"]
    want = sweep(on_cpu, base, variants, read=last_logits, method="full").values["logits"]
    np.testing.assert_allclose(got, want, atol=1e-6, rtol=0)


def test_no_hook_and_no_memory_is_left_on_the_device() -> None:
    model = build_model(hf_model("llama").to("cuda"))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(3):
        run(model, tokens(), capture=["pattern", "z"])
        sweep(model, Base(tokens()), [Variant((Edit("z", 1, "zero"),))], read=last_logits)
    assert torch.cuda.memory_allocated() - before < 2**16
    assert model.modules_with_hooks() == 0


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_looking_on_cuda_gives_the_numbers_of_the_cpu(name: str) -> None:
    on_cpu, on_gpu, ids = tiny(name), build_model(hf_model(name).to("cuda")), tokens(1, 7)
    want: dict[str, torch.Tensor] = {}
    last, places = on_cpu.dims.n_layers - 1, [("embed", None), ("z", 1), ("mlp_out", 2)]
    for model in (on_cpu, on_gpu):
        seen = observe(model, ids[0].tolist(), ["resid_post", "pattern", "attn_out"])
        assert seen["resid_post", last].device == model.device
        way = readout(model, seen["resid_post", last], [3, 4])
        found = gradients(model, ids, lambda logits: logits[0, -1, 3], places)
        numbers = {
            "lens": unembed(model, seen["resid_post", 1]),
            "pattern": seen["pattern", 2],
            "parts": way.parts(seen["attn_out", 1]),
            "gradient": found.gradients["z", 1],
        }
        if model is on_cpu:
            want = numbers
        else:
            for key, value in numbers.items():
                torch.testing.assert_close(value.cpu(), want[key], atol=1e-5, rtol=1e-4, msg=key)
