"""Where the decoder lies in files of whole layers on the hub: from their headers, before anything is fetched.

A safetensors file says it in its first kilobyte, a NumPy archive in its list of members and the first
kilobyte of each. Asked by HTTP range when sizes are asked for, so that they can say how much the encoders
alone are. What cannot be read so stays whole, with the reason.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath

from mi_core.errors import LanternError, TranscoderError
from mi_core.transcoders.hub_listing import Listing
from mi_core.transcoders.hub_range import RemoteFile
from mi_core.transcoders.sources import ByteFile, Span

MAX_FILES = 128
"""Files whose headers are read for one answer; a transcoder has one per layer."""
_TOGETHER = 8
_DECODER = "w_dec"


def look_inside(listing: Listing, files: Sequence[str], *, endpoint: str | None = None) -> Listing:
    """A listing that knows where the decoders of files of whole layers lie.

    Args:
        listing: what the repository holds; what it knows already is not asked again.
        files: which, by their path in the repository.
        endpoint: address of the hub; None = as the environment says.
    """
    unknown = [file for file in files if file not in listing.encoders]
    if len(unknown) > MAX_FILES:
        why = f"it has {len(unknown):,} of them; name one of its folders to see the encoders apart"
        return replace(listing, entire={file: why for file in unknown})

    def one(file: str) -> tuple[Span, ...] | str:
        remote = RemoteFile(listing.repo, listing.commit, file, listing.files[file], endpoint=endpoint)
        try:
            return encoder_spans(remote)
        except LanternError as error:
            return error.why or error.what

    with ThreadPoolExecutor(_TOGETHER) as pool:
        found = dict(zip(unknown, pool.map(one, unknown), strict=True))
    spans = {file: value for file, value in found.items() if not isinstance(value, str)}
    entire = {file: value for file, value in found.items() if isinstance(value, str)}
    return replace(listing, encoders={**listing.encoders, **spans}, entire=entire)


def encoder_spans(file: ByteFile) -> tuple[Span, ...]:
    """All of a file of whole layers but the numbers of its decoder.

    Raises:
        TranscoderError: it has no decoder, is compressed, damaged, or a pickle.
        ModelError: the hub does not give it.
    """
    from mi_core.transcoders.sources_npz import HEADER_BYTES, is_compressed, open_npz
    from mi_core.transcoders.sources_safetensors import open_safetensors

    kind, more = PurePosixPath(file.name).suffix, 0
    if kind == ".npz":
        if is_compressed(file):
            raise _stays_whole(file, "its arrays are compressed")
        opened, more = open_npz(file), HEADER_BYTES  # which is read of the decoder to know its shape
    elif kind == ".safetensors":
        opened = open_safetensors(file)
    else:
        raise _stays_whole(file, "only safetensors and npz say what lies where")
    decoder = next((place for key, place in opened.tensors.items() if key.lower() == _DECODER), None)
    if decoder is None:
        raise _stays_whole(file, "it names no W_dec")
    end = decoder.first + decoder.bytes
    spans = ((0, min(decoder.first + more, end)), (end, file.size - end))
    return tuple(span for span in spans if span[1])


def _stays_whole(file: ByteFile, why: str) -> TranscoderError:
    return TranscoderError(f"The encoder of {file.name} cannot be fetched apart", kind="unsupported", why=why)
