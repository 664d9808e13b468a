"""Which model a tuned lens belongs to, and the sentence that is said when it is another one."""

import hashlib

import numpy as np

from mi_core.analyses.tuned_lens import LensOrigin
from mi_core.model.model import LoadedModel
from mi_core.model.weights import unembedding

_PRINTED_WHOLE, _EDGE = 1000, 3  # numpy shortens longer arrays to this many items at each end


def unembed_hash(model: LoadedModel) -> str:
    """The hash by which the tuned-lens package knows an unembedding matrix.

    It hashes numpy's shortened print of the matrix [d_vocab, d_model], that is the three first and last
    numbers of its three first and last rows, with one decimal: the same for every number format.
    """
    matrix = unembedding(model.hf).T
    whole = matrix.numel() <= _PRINTED_WHOLE or min(matrix.shape) < 2 * _EDGE + 1
    if not whole:  # numpy reads only the edges, so nothing else has to be copied off the device
        edges = [*range(_EDGE + 1), *range(-_EDGE, 0)]
        matrix = matrix[edges][:, edges]
    numbers = matrix.float().cpu().numpy()
    text = np.array2string(numbers, precision=1, edgeitems=_EDGE, threshold=_PRINTED_WHOLE if whole else 0)
    return hashlib.sha256(text.encode()).hexdigest()


def origin_warnings(origin: LensOrigin, model: LoadedModel) -> tuple[str, ...]:
    """Sentences that tell when a lens was trained on another model than the loaded one.

    The surest sign that is there decides: the fingerprint of the weights, else the unembedding's hash, else
    the name.
    """
    trained = f"This lens was trained on {origin.base_model[:80]!r}"
    if origin.fingerprint and model.fingerprint:
        if origin.fingerprint == model.fingerprint:
            return ()
        return (
            f"{trained} with weights {origin.fingerprint[:16]}, and the loaded model has weights "
            f"{model.fingerprint[:16]}: its readings may be wrong.",
        )
    if origin.unembed_hash is not None:
        if origin.unembed_hash == unembed_hash(model):
            return ()
        return (
            f"{trained}, whose unembedding is not that of the loaded model (the hashes differ): its readings "
            "may be wrong.",
        )
    name = getattr(model.spec, "name", "")
    if origin.base_model and last_part(origin.base_model) != last_part(name):
        return (f"{trained}; the loaded model is {name[:80]!r}, and nothing proves that they are the same.",)
    return ()


def last_part(name: str) -> str:
    """`openai-community/gpt2` and `/models/gpt2/` are both `gpt2`."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2].lower()
