"""The probe: what a family's data promises is proved on the loaded model, every time it is loaded.

Each check states an identity. What fails is switched off with its reason (`structure.missing`,
`report.replay`), so nothing that was not proved on *these* weights is ever drawn. The idea of proving
adapters at load, and of checking that a pattern which is replaced changes the output, is nnterp's
(https://github.com/Butanium/nnterp).
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mi_core.engine.edits import Edit, normalise
from mi_core.engine.layout import dense_layout
from mi_core.engine.place import Placed
from mi_core.engine.plan import block_weights
from mi_core.engine.replay import tail
from mi_core.engine.run import Run, forward, run
from mi_core.engine.session import Session
from mi_core.engine.sweep import sweep
from mi_core.engine.variants import Base, Variant
from mi_core.model.model import LoadedModel, ProbeCheck, ProbeReport
from mi_core.model.structure import Dims
from mi_core.sites import SITES

N_TOKENS = 6
SPEED_TOKENS = 600  # enough for full matrix speed on two cores
SPEED_FLOPS = 2e10  # well under a second on two cores
_ATTENTION_SITES = ("rot_q", "rot_k", "attn_scores", "pattern")
_ADDED = ("attn_out", "mlp_out", "resid_mid")


def probe_tokens(dims: Dims) -> Int[Tensor, "row pos"]:
    """Two rows of distinct token ids spread over the vocabulary, the same for every load."""
    ids = torch.arange(2 * N_TOKENS) * (dims.d_vocab - 1) // (2 * N_TOKENS)
    return ids.flip(0).reshape(2, N_TOKENS)


def own_logits(hf: Any, dims: Dims) -> Float[Tensor, "row pos d_vocab"]:
    """The model's answer with its own attention, before anything of ours is installed."""
    with torch.inference_mode():
        return hf(
            input_ids=probe_tokens(dims).to(hf.get_input_embeddings().weight.device), use_cache=False
        ).logits


def tolerance(dtype: torch.dtype) -> float:
    """Largest relative difference that rounding explains."""
    return {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 2e-2}.get(dtype, 8e-2)


def _distance(a: Tensor, b: Tensor) -> float:
    """Largest difference, relative to the spread of `b`."""
    b = b.to(a.device).double()
    return float((a.double() - b).abs().max() / b.std().clamp_min(1e-12))


def probe(
    model: LoadedModel, reference: Tensor, *, on_phase: Callable[[str, float, str], None] | None = None
) -> ProbeReport:
    """Run all checks and switch off what fails.

    Args:
        model: the model, with our attention function installed.
        reference: logits of `probe_tokens` with the model's own attention.
        on_phase: called as ("check", fraction, name of the check); may raise Cancelled.
    """
    started, checks = time.perf_counter(), []
    report = on_phase or (lambda _phase, _fraction, _text: None)
    tokens = probe_tokens(model.dims)
    report("check", 0.0, "attention")
    checks.append(_same_attention(model, tokens, reference))
    report("check", 0.2, "sites")
    whole = run(model, tokens, capture=[name for name in model.structure.available() if name != "result"])
    tasks = (_shapes, _rows_sum_to_one, _residual_identity, _serial_blocks, _tail_identity, _causal_mask)
    for number, task in enumerate(tasks):
        report("check", 0.3 + 0.05 * number, task.__name__.strip("_").replace("_", " "))
        checks.append(task(model, tokens, whole))
    for number, check in enumerate(_edits_act(model, tokens)):
        report("check", 0.55 + 0.02 * number, check.name)
        checks.append(check)
    report("check", 0.9, "replay")
    replay = _replay(model, tokens)
    checks.append(replay)
    for check in checks:
        for name in check.switched_off:
            if name in SITES:
                model.structure.missing.setdefault(name, f"the probe failed: {check.detail}")
    if "replay" not in replay.switched_off:
        report("check", 0.95, "speed")
        _measure_speed(model, tokens)
    report("check", 1.0, "done")
    return ProbeReport(tuple(checks), "replay" not in replay.switched_off, time.perf_counter() - started)


def _same_attention(model: LoadedModel, tokens: Tensor, reference: Tensor) -> ProbeCheck:
    name = "our attention gives the model's own logits"
    try:
        distance = _distance(run(model, tokens).logits, reference)
        detail = f"largest relative difference {distance:.1e}"
    except NotImplementedError as error:
        distance, detail = float("inf"), str(error)
    if distance <= max(
        tolerance(model.dtype), 1e-4
    ):  # families take the softmax in float32 even of float64 models
        return ProbeCheck(name, True, detail)
    model.hf.set_attn_implementation("eager")
    for site_name in _ATTENTION_SITES:
        model.structure.missing.setdefault(site_name, f"our attention differs from the model's: {detail}")
    return ProbeCheck(name, False, detail, (*_ATTENTION_SITES, "replay"))


def _shapes(model: LoadedModel, tokens: Tensor, whole: Run) -> ProbeCheck:
    wanted = [
        (name, layer)
        for name in model.structure.available()
        if name != "result"
        for layer in model.structure.layers_of(name)
    ]
    absent = sorted({name for name, layer in wanted if (name, layer) not in whole})
    detail = f"{len(wanted) - len(absent)} places have the shape of their site"
    if absent:
        detail = f"no hook fired at {', '.join(absent)}"
    return ProbeCheck("every site was reached, with its shape", not absent, detail, tuple(absent))


def _rows_sum_to_one(model: LoadedModel, _tokens: Tensor, whole: Run) -> ProbeCheck:
    name = "rows of attention sum to 1"
    patterns = [value for (site_name, _), value in whole.items() if site_name == "pattern"]
    if not patterns:
        return ProbeCheck(name, False, "no pattern can be read", ("pattern", "attn_scores"))
    off = max(float((pattern.double().sum(-1) - 1).abs().max()) for pattern in patterns)
    limit = 1e-2 if model.dtype in (torch.float16, torch.bfloat16) else 1e-5
    return ProbeCheck(
        name, off <= limit, f"largest deviation {off:.1e}", () if off <= limit else ("pattern", "attn_scores")
    )


def _residual_identity(model: LoadedModel, _tokens: Tensor, whole: Run) -> ProbeCheck:
    name = "resid_pre + attn_out + mlp_out = resid_post"
    if not all(site_name in model.structure.available() for site_name in ("attn_out", "mlp_out")):
        return ProbeCheck(name, False, "what is added to the stream cannot be read", _ADDED)
    worst = 0.0
    for layer in range(model.dims.n_layers):
        before, after = whole["resid_pre", layer], whole["resid_post", layer]
        added = (
            before.double()
            + whole["attn_out", layer].to(before.device).double()
            + whole["mlp_out", layer].to(before.device).double()
        )
        worst = max(worst, _distance(added, after))
    passed = worst <= tolerance(model.dtype)
    return ProbeCheck(name, passed, f"largest relative difference {worst:.1e}", () if passed else _ADDED)


def _serial_blocks(model: LoadedModel, tokens: Tensor, whole: Run) -> ProbeCheck:
    """`resid_mid` is a place only where the MLP reads what attention wrote in the same block."""
    name = "the MLP reads what attention wrote in its block"
    offered = model.structure.available()
    if "resid_mid" not in offered or "mlp_in" not in offered:
        return ProbeCheck(name, True, "not offered on this model, nothing to prove")
    edited = run(model, tokens, capture=[("mlp_in", 0)], edits=[_disturb(model, "attn_out", 0)])
    if _distance(edited["mlp_in", 0], whole["mlp_in", 0]) > 32 * torch.finfo(model.dtype).eps:
        return ProbeCheck(name, True, "it does: resid_mid exists")
    return ProbeCheck(name, False, "attention and MLP of a block read the same stream", ("resid_mid",))


def _tail_identity(model: LoadedModel, tokens: Tensor, whole: Run) -> ProbeCheck:
    name = "final norm and unembedding of the last residual = the model's logits"
    last = whole["resid_post", model.dims.n_layers - 1]
    logits = tail(model, last, [], last_position=tokens.shape[1] - 1)
    distance = _distance(logits, whole.logits)
    passed = distance <= tolerance(model.dtype)
    return ProbeCheck(
        name,
        passed,
        f"largest relative difference {distance:.1e}",
        () if passed else ("final_norm", "replay"),
    )


def _causal_mask(model: LoadedModel, tokens: Tensor, whole: Run) -> ProbeCheck:
    changed = tokens.clone()
    changed[:, -1] = tokens.flip(0)[:, 0]
    distance = _distance(run(model, changed).logits[:, :-1], whole.logits[:, :-1])
    passed = distance <= tolerance(model.dtype)
    return ProbeCheck(
        "a later token changes nothing earlier",
        passed,
        f"largest relative difference {distance:.1e}",
        () if passed else ("replay",),
    )


def _edits_act(model: LoadedModel, tokens: Tensor) -> Iterator[ProbeCheck]:
    """An edit of each site, in the first and last layer, must change the logits: else nobody reads it.

    All edits run side by side, one per row of a single batch, so that weights are read once. The first and
    the last row have no edit: how far they differ is the batch's own noise.
    """
    wanted = [
        (name, layer)
        for name in model.structure.available()
        for layer in sorted(
            {model.structure.layers_of(name)[0], model.structure.layers_of(name)[-1]}, key=str
        )
    ]
    n_pos = tokens.shape[1]
    placed = [
        Placed(normalise(_disturb(model, name, layer), model.structure, n_pos), row, 1)
        for row, (name, layer) in enumerate(wanted, start=1)
    ]
    rows = tokens[:1].repeat(len(wanted) + 2, 1)
    session = Session(model, dense_layout(len(rows), n_pos), placed)
    with torch.inference_mode(), session:
        logits = forward(session, rows)
    # In half precision 32 roundings are a quarter of the logits' spread, and real edits can do less.
    rounding = min(32 * torch.finfo(model.dtype).eps, 1e-3)
    unheard = max(rounding, 8 * _distance(logits[0], logits[-1]))
    for name in dict.fromkeys(name for name, _ in wanted):
        silent = [
            layer
            for row, (other, layer) in enumerate(wanted, start=1)
            if other == name and _distance(logits[row], logits[-1]) <= unheard
        ]
        detail = "it does" if not silent else f"no change in layer {silent[0]}"
        yield ProbeCheck(f"editing {name} changes the logits", not silent, detail, (name,) if silent else ())


def _disturb(model: LoadedModel, name: str, layer: int | None) -> Edit:
    """An edit that is felt everywhere: a norm undoes a scale, and no scale changes masked scores."""
    if name == "attn_scores":
        return Edit(name, layer, "set", value=0.0)
    if name == "pattern":
        return Edit(name, layer, "zero", keys=tuple(range(0, N_TOKENS, 2)))
    if name == "logits":
        return Edit(name, layer, "scale", value=0.5)
    width = model.structure.shape(name, N_TOKENS)[-1]
    return Edit(name, layer, "zero", units=tuple(range(0, width, 2)))


def _replay(model: LoadedModel, tokens: Tensor) -> ProbeCheck:
    name = "replayed layers = whole forward passes"
    if "pattern" not in model.structure.available():
        return ProbeCheck(name, False, "our attention function is not in use", ("replay",))
    n_layers, width = model.dims.n_layers, model.dims.d_model
    shift = torch.linspace(-1.0, 1.0, width)
    places = [
        ("resid_pre", 0, 1),
        ("resid_pre", n_layers // 2, 2),
        ("mlp_in", n_layers - 1, N_TOKENS - 1),
        ("resid_pre", n_layers - 1, 3),
    ]
    variants = [
        Variant((Edit(site_name, layer, "add", (position,), value=shift),))
        for site_name, layer, position in places
        if site_name in model.structure.available()
    ]
    base = Base(tokens)
    try:
        fast = sweep(model, base, variants, read=lambda x: {"logits": x[:, :, -1].double()}, method="shared")
    except (RuntimeError, TypeError, ValueError, AttributeError, KeyError) as error:
        return ProbeCheck(
            name,
            False,
            f"a layer could not be called alone: {type(error).__name__}: {error}"[:300],
            ("replay",),
        )
    slow = sweep(model, base, variants, read=lambda x: {"logits": x[:, :, -1].double()}, method="full")
    distance = _distance(torch.from_numpy(fast.values["logits"]), torch.from_numpy(slow.values["logits"]))
    passed = distance <= tolerance(model.dtype)
    return ProbeCheck(
        name, passed, f"largest relative difference {distance:.1e}", () if passed else ("replay",)
    )


def _measure_speed(model: LoadedModel, tokens: Tensor) -> None:
    """Time a sweep that says something, of at most `SPEED_FLOPS`, for the estimates of `plan`."""
    per_token = 2 * block_weights(model) * model.dims.n_layers
    n_variants = int(min(SPEED_TOKENS, SPEED_FLOPS / max(1, per_token))) // (2 * N_TOKENS)
    variants = [Variant((Edit("resid_pre", 0, "scale", (0,), value=0.9),))] * n_variants
    model.token_layers_per_second = 0.0
    if variants:
        sweep(model, Base(tokens), variants, read=lambda x: {"first": x[:, 0, 0, 0]}, method="shared")
