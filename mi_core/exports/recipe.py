"""Programs that make a figure's numbers again through the library's public doors, and check them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.provenance import Provenance

# Two machines add in different orders; what that costs grows with the rounding of the number format.
_TOLERANCES = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}

MAX_LITERAL = 4000  # characters; longer inputs, such as a prompt set, are read from data.json

_ANALYSIS = '''"""Makes the numbers of this figure again and compares them with data.json.

Run it with Lantern installed (`pip install -e .` in its folder): python recipe.py
"""

import json
from pathlib import Path

import numpy as np

from mi_core import ModelSpec, load_model
from mi_core.analyses import {imported}

stored = json.loads(Path(__file__).with_name("data.json").read_text(encoding="utf-8"))["result"]

model = load_model({spec})
assert model.fingerprint == {fingerprint}, f"other weights: {{model.fingerprint}}"

result = {function}(
    model,
    {inputs},
)

for name, tolerance in {tolerances}.items():
    again = np.asarray(getattr(result, name))
    kept = np.array(stored[name], dtype=again.dtype).reshape(again.shape)
    np.testing.assert_allclose(again, kept, rtol=tolerance, atol=tolerance, err_msg=name)
print("The numbers agree with data.json.")
'''


def analysis_recipe(result: Any, *, function: str, arrays: Sequence[str]) -> str:
    """A program that repeats any analysis and compares some of its arrays; empty without a model.

    Args:
        result: made by `function`.
        function: public name in `mi_core.analyses`.
        arrays: attributes of the result that are keys of its JSON too.
    """
    origin = result.provenance
    if origin is None:
        return ""
    inputs, name = ascii(result.inputs), type(result.inputs).__name__
    tolerance = _TOLERANCES.get(origin.dtype, 0.1)
    kinds = {array: np.asarray(getattr(result, array)).dtype.kind for array in arrays}
    return _ANALYSIS.format(
        imported=", ".join(sorted((name, function))),
        spec=_spec(origin),
        fingerprint=ascii(origin.fingerprint),
        function=function,
        inputs=inputs if len(inputs) <= MAX_LITERAL else f'{name}.from_dict(stored["inputs"])',
        tolerances={array: tolerance if kind == "f" else 0 for array, kind in kinds.items()},
    )


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
assert model.fingerprint == {fingerprint}, f"other weights: {{model.fingerprint}}"

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
    return _CAUSAL_TRACE.format(
        spec=_spec(origin),
        fingerprint=ascii(origin.fingerprint),
        inputs=ascii(result.inputs),
        tolerance=_TOLERANCES.get(origin.dtype, 0.1),
    )


_CAUSAL_TRACE_AVERAGE = '''"""Makes this average of causal traces again and compares it with data.json.

Run it with Lantern installed (`pip install -e .` in its folder): python recipe.py
The prompts are in data.json.
"""

import json
from pathlib import Path

import numpy as np

from mi_core import ModelSpec, load_model
from mi_core.analyses import CausalTraceAverageInputs, causal_trace_average

stored = json.loads(Path(__file__).with_name("data.json").read_text(encoding="utf-8"))["result"]

model = load_model({spec})
assert model.fingerprint == {fingerprint}, f"other weights: {{model.fingerprint}}"

result = causal_trace_average(model, CausalTraceAverageInputs.from_dict(stored["inputs"]))

for kind, values in stored["sums"].items():
    np.testing.assert_allclose(
        result.sums[kind], np.array(values), rtol={tolerance}, atol={tolerance}, err_msg=kind
    )
print("The numbers agree with data.json.")
'''


def causal_trace_average_recipe(result: CausalTraceAverageResult) -> str:
    """A program that repeats an average of causal traces; empty for a result without a model."""
    origin = result.provenance
    if origin is None:
        return ""
    return _CAUSAL_TRACE_AVERAGE.format(
        spec=_spec(origin),
        fingerprint=ascii(origin.fingerprint),
        tolerance=_TOLERANCES.get(origin.dtype, 0.1),
    )


def _spec(origin: Provenance) -> str:
    return (
        f"ModelSpec(name={origin.model!a}, revision={origin.revision!a}, "
        f"dtype={origin.dtype!a}, attention={origin.attention!a})"
    )
