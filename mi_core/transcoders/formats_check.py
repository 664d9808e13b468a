"""The load self-test: is this transcoder what it says, for this model, read in the right place?

    unexplained_m = sum_t ||y_m,t - y^_m,t||^2 / sum_t ||y_m,t - mean_t y_m||^2

A transcoder that reads or writes the wrong place, or belongs to another model, gives numbers without any
error; but its reconstruction is then worse than the mean (a share above 1), on any prompt. Files and shapes
alone cannot tell. Reconstruction needs decoder rows of all active features; where these would come over the
network, the fit is not measured and that is said; nor at layers to which features write that are not here.
Cost: one forward pass (shared with all pages), encoding, and the decoder rows of the active features.
"""

from collections.abc import Callable

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.analyses.causal_trace_result import Step
from mi_core.analyses.neuron_texts import context_of
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.tokens import tokenize
from mi_core.transcoders.encode import fit, masked_positions
from mi_core.transcoders.formats_check_result import WRONG, TranscoderCheckInputs, TranscoderCheckResult
from mi_core.transcoders.formats_parts import FileSource
from mi_core.transcoders.sizes import lacking_decoders, memory_needed
from mi_core.transcoders.store import load_transcoder
from mi_core.transcoders.transcoder import Transcoder

ENOUGH_TOKENS = 4
"""Below this the variance over tokens says little."""

OnStep = Callable[[Step[TranscoderCheckResult]], None]


def transcoder_check(
    model: LoadedModel, inputs: TranscoderCheckInputs, *, on_step: OnStep | None = None
) -> TranscoderCheckResult:
    """Open a transcoder, say what it takes, and measure how well it fits a prompt.

    Args:
        model: the loaded model.
        inputs: prompt and transcoder.
        on_step: told before each part; may raise `Cancelled`, and then there is no result.

    Raises:
        InputError: the prompt cannot be read.
        TranscoderError: the transcoder cannot be found or used.
        SiteMissing: the model does not have what the transcoder reads.
    """
    tell = on_step or (lambda step: None)
    tell(Step(0, 2, None, None, "opening"))
    transcoder = load_transcoder(model, inputs.transcoder)
    tell(Step(1, 2, None, None, "fit on this prompt"))
    targets = np.array(transcoder.written_layers, dtype=np.int64)
    unexplained, whole, notes = np.full(len(targets), np.nan), float("nan"), _why_not(transcoder)
    if not notes:
        prompt = tokenize(model.tokenizer, inputs.prompt, bos=inputs.bos, limit=context_of(model))
        fitted = fit(model, transcoder, prompt.ids, show_bos=inputs.show_bos)
        whole_ones = np.array([_is_whole(transcoder, int(target)) for target in targets])
        unexplained = np.where(whole_ones, fitted.unexplained.double().cpu().numpy(), np.nan)
        whole = float(fitted.unexplained_all) if whole_ones.all() else float("nan")
        notes = _few_tokens(len(prompt) - len(masked_positions(model, prompt.ids)))
    return _result(model, inputs, transcoder, (targets, unexplained, whole), notes)


def _is_whole(transcoder: Transcoder, target: int) -> bool:
    """Whether all layers that write to this one are here."""
    return transcoder.kind != "clt" or set(range(target + 1)) <= set(transcoder.layers)


def _few_tokens(count: int) -> tuple[str, ...]:
    if count >= ENOUGH_TOKENS:
        return ()
    return (f"The fit rests on {count} token{'s' if count != 1 else ''} only: try a longer prompt.",)


def _why_not(transcoder: Transcoder) -> tuple[str, ...]:
    """Why the fit is not measured; nothing when it is."""
    if not transcoder.has_decoder:
        return ("Only the encoders are here: what is active can be seen, how well it fits cannot.",)
    if not transcoder.local:
        return (
            "Decoder rows come from the hub one by one. How well the transcoder fits needs thousands of "
            "them, so it was not measured: fetch the decoders to see it.",
        )
    lacking = lacking_decoders(transcoder)
    if lacking:
        return (
            f"Of {len(lacking)} of {len(transcoder.layers)} layers only the encoders are here "
            f"({_some(lacking)}), so how well the transcoder fits was not measured: fetch their decoders to "
            "see it.",
        )
    return ()


def _some(layers: tuple[int, ...]) -> str:
    return ", ".join(map(str, layers[:12])) + (" and more" if len(layers) > 12 else "")


def _result(
    model: LoadedModel,
    inputs: TranscoderCheckInputs,
    transcoder: Transcoder,
    fitted: tuple[np.ndarray, np.ndarray, float],
    notes: tuple[str, ...],
) -> TranscoderCheckResult:
    targets, unexplained, whole = fitted
    needed, source = memory_needed(transcoder), transcoder.source
    encoder_bytes = transcoder.resident_bytes if needed is None else needed.encoders
    return TranscoderCheckResult(
        inputs=inputs,
        provenance=Provenance.of(model),
        name=transcoder.name,
        format=source.parts.format if isinstance(source, FileSource) else "in memory",
        kind=transcoder.kind,
        activation=transcoder.activation,
        model_name=transcoder.model_name,
        reads=transcoder.reads.text,
        writes=transcoder.writes.text,
        fingerprint=transcoder.fingerprint,
        layers=np.array(transcoder.layers, dtype=np.int64),
        n_features=np.array([transcoder.n_features[layer] for layer in transcoder.layers], dtype=np.int64),
        targets=targets,
        unexplained=unexplained,
        unexplained_all=whole,
        encoder_bytes=encoder_bytes,
        decoder_bytes=transcoder.decoder_bytes,
        row_bytes=0 if needed is None else needed.row,
        promised_bytes=encoder_bytes if needed is None else needed.promised,
        resident_bytes=transcoder.resident_bytes,
        read_bytes=transcoder.read_bytes,
        local=transcoder.local,
        warnings=(*transcoder.warnings, *notes),
        checks=_checks(targets, unexplained),
    )


def _checks(targets: np.ndarray, unexplained: np.ndarray) -> tuple[Check, ...]:
    """Passed when every layer does better than the mean; no check where nothing was measured."""
    if np.isnan(unexplained).all():
        return ()
    worst = int(np.nanargmax(unexplained))
    passed = not bool((unexplained > WRONG).any())
    detail = f"at worst {unexplained[worst]:.3g} of the variance unexplained (layer {targets[worst]})"
    return (
        Check(
            "hooks and model fit",
            passed,
            detail if passed else f"wrong hooks or wrong model: {detail}, and 1 is what the mean leaves",
        ),
    )
