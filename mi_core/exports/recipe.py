"""Programs that make a figure's numbers again through the library's public doors, and check them."""

import ast
from collections.abc import Sequence
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_average_types import CausalTraceAverageResult
from mi_core.analyses.causal_trace_result import CausalTraceResult
from mi_core.provenance import Provenance

# Two machines add in different orders; what that costs grows with the rounding of the number format.
_TOLERANCES = {"float64": 1e-8, "float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}
MAX_LITERAL = 4000  # characters; longer inputs, such as a prompt set, are read from data.json

_PROGRAM = '''"""Makes the numbers of {what} again and compares them with data.json.

Run it with Lantern installed (`pip install -e .` in its folder): python recipe.py
"""

import json
from pathlib import Path

import numpy as np

from mi_core import ModelSpec, load_model
from {package} import {imported}

stored = json.loads(Path(__file__).with_name("data.json").read_text(encoding="utf-8"))["result"]

model = load_model({spec})
assert model.fingerprint == {fingerprint}, f"other weights: {{model.fingerprint}}"

result = {function}(
    model,
    {inputs},
)

{comparison}
print("The numbers agree with data.json.")
'''

_ARRAYS = """\
for name, tolerance in {tolerances}.items():
    again = np.asarray(getattr(result, name))
    kept = np.array(stored[name], dtype=again.dtype)
    if not kept.size:
        kept = kept.reshape(again.shape)
    if tolerance:
        np.testing.assert_allclose(again, kept, rtol=tolerance, atol=tolerance, err_msg=name)
    else:
        np.testing.assert_array_equal(again, kept, err_msg=name)"""

_GRIDS = """\
for kind, grid in stored["grids"].items():
    done = np.array(grid["done"])
    for metric, values in grid["samples"].items():
        np.testing.assert_allclose(
            result.grids[kind].samples[metric][done],
            np.array(values, dtype=float)[done],
            rtol={tolerance}, atol={tolerance}, err_msg=f"{{kind}}, {{metric}}",
        )"""

_SUMS = """\
for kind, values in stored["sums"].items():
    np.testing.assert_allclose(
        result.sums[kind], np.array(values), rtol={tolerance}, atol={tolerance}, err_msg=kind
    )"""


def analysis_recipe(result: Any, *, function: str, arrays: Sequence[str]) -> str:
    """A program that repeats any analysis and compares its arrays; empty for a result without a model.

    Floating-point numbers may differ as much as two machines do, all others not at all.

    Args:
        result: made by `function`, with `inputs` and `provenance`.
        function: public name in `mi_core.analyses`, or in `mi_core.transcoders` if the inputs are from there;
            the class of the inputs must be public there too.
        arrays: attributes of the result that have the same names in its JSON.

    Raises:
        AttributeError: the result has no such array.
    """
    if result.provenance is None:
        return ""
    kinds = {name: np.asarray(getattr(result, name)).dtype.kind for name in arrays}
    tolerance = _tolerance(result.provenance)
    tolerances = {name: tolerance if kind == "f" else 0 for name, kind in kinds.items()}
    return _program(result, function, _ARRAYS.format(tolerances=tolerances), what="this figure")


def causal_trace_recipe(result: CausalTraceResult) -> str:
    """A program that repeats a causal trace; empty for a result without a model."""
    if result.provenance is None:
        return ""
    comparison = _GRIDS.format(tolerance=_tolerance(result.provenance))
    return _program(result, "causal_trace", comparison, what="this causal trace")


def causal_trace_average_recipe(result: CausalTraceAverageResult) -> str:
    """A program that repeats an average of causal traces; empty for a result without a model."""
    if result.provenance is None:
        return ""
    comparison = _SUMS.format(tolerance=_tolerance(result.provenance))
    return _program(result, "causal_trace_average", comparison, what="this average of causal traces")


def _program(result: Any, function: str, comparison: str, *, what: str) -> str:
    """The program. Texts go in as Python literals, so that nothing in a prompt can become code."""
    origin, inputs = result.provenance, type(result.inputs).__name__
    return _PROGRAM.format(
        what=what,
        package=_package(result.inputs),
        imported=", ".join(sorted((inputs, function))),
        spec=_spec(origin),
        fingerprint=ascii(origin.fingerprint),
        function=function,
        inputs=_literal(result.inputs) or f'{inputs}.from_dict(stored["inputs"])',
        comparison=comparison,
    )


def _package(inputs: Any) -> str:
    """The package with the public names of the inputs and the function."""
    transcoders = "mi_core.transcoders"
    return transcoders if type(inputs).__module__.startswith(f"{transcoders}.") else "mi_core.analyses"


def _literal(inputs: Any) -> str:
    """The inputs as a call with plain literals; empty where that would be long, or is none (NaN, objects)."""
    text = ascii(inputs)
    if len(text) > MAX_LITERAL:
        return ""
    try:
        call = ast.parse(text, mode="eval").body
        plain = isinstance(call, ast.Call) and not call.args
        for keyword in call.keywords if isinstance(call, ast.Call) else ():
            ast.literal_eval(keyword.value)
    except (SyntaxError, ValueError):
        return ""
    return text if plain else ""


def _tolerance(origin: Provenance) -> float:
    return _TOLERANCES.get(origin.dtype, 0.1)


def _spec(origin: Provenance) -> str:
    return (
        f"ModelSpec(name={origin.model!a}, revision={origin.revision!a}, "
        f"dtype={origin.dtype!a}, attention={origin.attention!a})"
    )
