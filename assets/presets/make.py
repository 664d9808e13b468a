"""Run the examples on the bundled model and store their results: `python assets/presets/make.py`.

Every example is run as a user would run it. What its card promises is checked on the numbers; an example
that does not show it is not written, and the program ends with an error.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from mi_core import load_model  # noqa: E402
from mi_core.analyses import CausalTraceInputs, CausalTraceResult, causal_trace  # noqa: E402
from mi_core.tokens import find_span, tokenize  # noqa: E402
from pages.shared.examples import FOLDER, TRACES, Example  # noqa: E402
from pages.shared.link import show_span  # noqa: E402

Promise = Callable[[CausalTraceResult], None]


def inputs_of(example: Example, tokenizer: Any) -> CausalTraceInputs:
    """The inputs that the page would make of the example's values."""
    values = example.values
    prompt = tokenize(tokenizer, values["prompt"])
    swap = values.get("corruption") == "prompt"
    return CausalTraceInputs(
        prompt=values["prompt"],
        corrupted_prompt=values["second_prompt"] if swap else None,
        subject=find_span(prompt, example.subject) if example.subject else None,
        direction=values.get("direction", "denoising"),
        kinds=tuple(values.get("kinds", ("state", "attn", "mlp"))),
        answer=values.get("answer"),
        distractor=values.get("distractor"),
    )


def values_of(example: Example, inputs: CausalTraceInputs) -> dict[str, Any]:
    """The link's values: those of the example and the subject's positions in this tokenizer."""
    return {**example.values, "subject": show_span(inputs.subject)}


# --- what the cards promise
# -------------------------------------------------------------------------------------------


def expect(condition: bool, what: str) -> None:
    """Stop when a promise does not hold."""
    if not condition:
        raise SystemExit(f"not shown by the model: {what}")


def two_sites(result: CausalTraceResult) -> None:
    """The last subject token in the lower layers, the last token at the end, little elsewhere."""
    share = result.grid("state", "recovered_probability")
    last, end = result.subject[1] - 1, len(result.tokens) - 1
    early = share[last, : result.n_layers // 2 + 1].max()
    others = [p for p in range(len(result.tokens)) if p not in (last, end)]
    expect(result.visible(int(result.clean.top_ids[0])) == "·Paris", "the clean run answers Paris")
    expect(early > 0.3, f"an early site at the last subject token ({early:.2f})")
    expect(share[end, -2] > 0.6, f"a late site at the last token ({share[end, -2]:.2f})")
    highest = share[others].max()
    expect(early > highest, f"the early site is the highest outside the last token ({highest:.2f})")


def answer_moves(result: CausalTraceResult) -> None:
    """Early layers: the name carries it; late layers: the last token does."""
    share = result.grid("state", "recovered_logit_difference")
    name = share[result.first_difference : result.subject[1]]
    expect(name[:, 0].max() > 0.4, f"the landmark's name carries the answer early ({name[:, 0].max():.2f})")
    expect(share[-1, -2] > 0.8, f"the last token carries it late ({share[-1, -2]:.2f})")
    expect(share[-1, 0] < 0.2 and name[:, -1].max() < 0.2, "and not the other way round")


def can_be_destroyed(result: CausalTraceResult) -> None:
    """Corrupted values at the country, or late at the last token, take the answer away."""
    grid = result.grid("state", "logit_difference")
    clean = result.value(result.clean, "logit_difference")
    expect(clean > 1, f"the clean run prefers Paris ({clean:.2f})")
    expect(grid[result.first_difference, 0] < 0, "Polish values at the country turn the answer round")
    expect(grid[-1, -1] < 0, "so do late ones at the last token")


def few_heads(result: CausalTraceResult) -> None:
    """Some head recovers much, the median head next to nothing."""
    share = result.grid("head", "recovered_logit_difference")
    median = abs(float(sorted(share.ravel())[share.size // 2]))
    expect(result.value(result.clean, "logit_difference") > 1, "the clean run prefers Mary")
    expect(share.max() > 0.2, f"one head carries the name ({share.max():.2f})")
    expect(median < 0.05, f"the median head does nothing ({median:.3f})")


def made_by_an_early_mlp(result: CausalTraceResult) -> None:
    """One MLP output is enough, attention is not, and severing later modules takes little away."""
    last, layers = result.subject[1] - 1, slice(0, result.n_layers // 2)
    kinds = ("state", "mlp", "attn", "state_mlp_severed", "state_attn_severed")
    state, mlp, attn, no_mlp, no_attn = (result.effect(kind)[last, layers].max() for kind in kinds)
    expect(mlp > 0.6 * state, f"one MLP output brings the answer back ({mlp:.2f} of {state:.2f})")
    expect(attn < 0.5 * mlp, f"attention at that token does not ({attn:.2f})")
    expect(min(no_mlp, no_attn) > 0.7 * state, f"severing changes little ({no_mlp:.2f}, {no_attn:.2f})")


PROMISES: dict[str, Promise] = {
    "eiffel_tower": two_sites,
    "space_needle": answer_moves,
    "capital_of_france": can_be_destroyed,
    "mary_and_john": few_heads,
    "severed": made_by_an_early_mlp,
}


def main() -> None:
    """Make every preset."""
    model = load_model("atlas")
    for example in TRACES:
        inputs = inputs_of(example, model.tokenizer)
        result = causal_trace(model, inputs)
        PROMISES[example.name](result)
        expect(all(check.passed for check in result.checks), f"{example.name}: all checks pass")
        record = {"values": values_of(example, inputs), "result": json.loads(result.to_json())}
        data = gzip.compress(json.dumps(record, ensure_ascii=False).encode(), mtime=0)
        (FOLDER / f"{example.name}.json.gz").write_bytes(data)
        sys.stdout.write(f"{example.name}: {len(data) / 1000:.0f} kB, {result.seconds:.2f} s\n")


if __name__ == "__main__":
    main()
