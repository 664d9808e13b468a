"""One feature over a corpus, read from features files: ours, or those of others (by byte range).

Nothing is computed: density, histogram and examples were written by a corpus pass (`corpus_run`), and what
the files say in two ways is compared. Cost: one read of a few kilobytes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from mi_core.analyses.causal_trace_parts import Check
from mi_core.model.model import LoadedModel
from mi_core.provenance import Provenance
from mi_core.transcoders.corpus_density import summary_of
from mi_core.transcoders.corpus_view_inputs import FeatureCorpusInputs
from mi_core.transcoders.corpus_view_result import FeatureCorpusResult
from mi_core.transcoders.feature_files_json import ROUNDING
from mi_core.transcoders.feature_files_places import feature_files
from mi_core.transcoders.feature_files_record import FeatureRecord
from mi_core.transcoders.names import parse_feature
from mi_core.transcoders.store import load_transcoder

OnStep = Callable[[Any], None]


def feature_corpus(
    model: LoadedModel, inputs: FeatureCorpusInputs, *, on_step: OnStep | None = None
) -> FeatureCorpusResult:
    """What the features files of a transcoder say about a feature.

    Args:
        model: a loaded model.
        inputs: which feature of which transcoder.
        on_step: never called: it is one read.

    Returns:
        What they say; `place` is empty where there are no files, `found` False where they hold nothing about
        this feature.

    Raises:
        TranscoderError: there is no such transcoder, or its repository may not be read yet.
        InputError: there is no such feature, or the files are damaged.
    """
    transcoder, feature = load_transcoder(model, inputs.transcoder), parse_feature(inputs.feature)
    transcoder.check(feature.layer, feature.index)
    files = feature_files(transcoder)
    record = None if files is None else files.record(feature.layer, feature.index)
    summary = summary_of(transcoder)
    named = {
        "inputs": inputs,
        "provenance": Provenance.of(model),
        "transcoder": transcoder.name,
        "place": "" if files is None else files.place.name,
        "text": summary.text if summary is not None and record is not None else "",
    }
    if record is None:
        return _nothing(named)
    return FeatureCorpusResult(
        **named,
        found=True,
        density=record.density,
        largest=record.largest,
        n_tokens=record.n_tokens or 0,
        n_active=record.n_active or 0,
        histogram=np.array(record.histogram, np.float64),
        edges=np.array(record.edges, np.float64),
        quantile_values=np.array(record.quantile_values, np.float64),
        coactive_layers=np.array([one.layer for one in record.coactive], np.int64),
        coactive_indices=np.array([one.index for one in record.coactive], np.int64),
        coactive_shares=np.array([one.share for one in record.coactive], np.float64),
        coactive_densities=np.array([one.density for one in record.coactive], np.float64),
        coactive_tokens=record.coactive_tokens,
        groups=record.groups,
        top_logits=record.top_logits,
        bottom_logits=record.bottom_logits,
        warnings=_warnings(record, None if summary is None else summary.fingerprint, transcoder.fingerprint),
        checks=_checks(record),
    )


def _warnings(record: FeatureRecord, made_for: str | None, fingerprint: str) -> tuple[str, ...]:
    """What does not fit; files of other programs do not say what they were made for."""
    other = made_for is not None and made_for != fingerprint
    said = (
        "The features files were made for other weights than these: run the corpus pass again."
        if other
        else ""
    )
    return tuple(one for one in (record.problem, said) if one)


def _nothing(named: dict[str, Any]) -> FeatureCorpusResult:
    none, whole = np.zeros(0), np.zeros(0, np.int64)
    return FeatureCorpusResult(
        **named, found=False, density=float("nan"), largest=0.0, n_tokens=0, n_active=0, histogram=none,
        edges=none, quantile_values=none, coactive_layers=whole, coactive_indices=whole,
        coactive_shares=none, coactive_densities=none,
    )  # fmt: skip


def _checks(record: FeatureRecord) -> tuple[Check, ...]:
    """What the record says twice."""
    checks = []
    if record.n_tokens and record.n_active is not None:
        off = abs(record.n_active / record.n_tokens - record.density)
        told = f"{record.n_active:,} of {record.n_tokens:,} tokens, density {record.density:.4g}."
        checks.append(Check("density is the count", off <= 1e-9 + 1e-6 * record.density, told))
        if record.edges:
            total = sum(record.histogram)
            detail = f"{total:,.0f} in the histogram, {record.n_active:,} active."
            checks.append(Check("the histogram adds up", total == record.n_active, detail))
    peaks = [one.activations[one.peak] for group in record.groups for one in group.examples]
    if peaks:
        over = max(peaks) - record.largest
        detail = f"The strongest example has {max(peaks):.4g}, the file says {record.largest:.4g} at most."
        fits = over <= ROUNDING * max(abs(record.largest), 1e-30)
        checks.append(Check("no example is above the largest activation", fits, detail))
    return tuple(checks)
