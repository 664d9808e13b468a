"""Programs that make a figure's numbers again through the library's public doors, and check them."""

from mi_core.analyses.causal_trace_result import CausalTraceResult

# Two machines add in different orders; what that costs grows with the rounding of the number format.
_TOLERANCES = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}

_CAUSAL_TRACE = '''"""Makes the numbers of this causal trace again and compares them with data.json.

Run it with Lantern installed (`pip install -e .` in its folder): python recipe.py
"""

import json
from pathlib import Path

import numpy as np

from mi_core import ModelSpec, load_model
from mi_core.analyses import CausalTraceInputs, causal_trace

stored = json.loads(Path(__file__).with_name("data.json").read_text(encoding="utf-8"))["result"]

model = load_model({spec})
assert model.fingerprint == {fingerprint!r}, f"other weights: {{model.fingerprint}}"

result = causal_trace(
    model,
    {inputs},
)

for kind, grid in stored["grids"].items():
    done = np.array(grid["done"])
    for metric, values in grid["samples"].items():
        np.testing.assert_allclose(
            result.grids[kind].samples[metric][done],
            np.array(values, dtype=float)[done],
            rtol={tolerance}, atol={tolerance}, err_msg=f"{{kind}}, {{metric}}",
        )
print("The numbers agree with data.json.")
'''


def causal_trace_recipe(result: CausalTraceResult) -> str:
    """A program that repeats a causal trace; empty for a result without a model.

    Texts go in as Python literals, so that nothing in a prompt can become code.
    """
    origin = result.provenance
    if origin is None:
        return ""
    spec = (
        f"ModelSpec(name={origin.model!r}, revision={origin.revision!r}, dtype={origin.dtype!r}, "
        f"attention={origin.attention!r})"
    )
    return _CAUSAL_TRACE.format(
        spec=spec,
        fingerprint=origin.fingerprint,
        inputs=ascii(result.inputs),
        tolerance=_TOLERANCES.get(origin.dtype, 0.1),
    )
