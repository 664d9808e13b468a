"""Where a number comes from: model, weights, number format, device, versions, seed, time."""

import hashlib
import json
import threading
import weakref
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from mi_core.errors import InputError
from mi_core.version import __version__

MAX_BYTES = 100_000


@dataclass(frozen=True, slots=True)
class Provenance:
    """What has to be equal for a number to come out again.

    Attributes:
        model: name by which it was loaded: bundled name, folder or hub id.
        revision: branch, tag or commit that was asked for; None = the default.
        fingerprint: of the weights (hub commit, or a hash of the safetensors files).
        dtype: number format of weights and activations, for example "float32".
        device: for example "cuda:0".
        attention: "fast" or "eager".
        tokenizer: class, size and hash.
        lantern_version: version of this program.
        torch: version.
        transformers: version.
        seed: of the noise or the bootstrap; None where nothing is random.
        created: time in UTC, ISO 8601.
    """

    model: str
    revision: str | None
    fingerprint: str
    dtype: str
    device: str
    attention: str
    tokenizer: str
    lantern_version: str
    torch: str
    transformers: str
    seed: int | None
    created: str

    @classmethod
    def of(cls, model: Any, *, seed: int | None = None) -> "Provenance":
        """Describe a loaded model now.

        Args:
            model: `mi_core.model.model.LoadedModel`.
            seed: of the analysis.
        """
        spec = model.spec
        return cls(
            model=spec.name if spec is not None else type(model.hf).__name__,
            revision=getattr(spec, "revision", None),
            fingerprint=model.fingerprint,
            dtype=str(model.dtype).removeprefix("torch."),
            device=str(model.device),
            attention=getattr(spec, "attention", "fast"),
            tokenizer=tokenizer_identity(model.tokenizer),
            lantern_version=__version__,
            torch=_version("torch"),
            transformers=_version("transformers"),
            seed=seed,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def to_dict(self) -> dict[str, str | int | None]:
        """Plain JSON values, one per field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Provenance":
        """The inverse of `to_dict`.

        Raises:
            InputError: not an object with exactly these fields and types.
        """
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            odd = sorted(names ^ set(values)) if isinstance(values, dict) else "it is not an object"
            raise InputError("The provenance is damaged", why=f"missing or unknown: {odd}")
        for name, value in values.items():
            if not _fits(name, value):
                raise InputError("The provenance is damaged", why=f"{name} is {value!r}")
        return cls(**values)

    def to_json(self) -> str:
        """JSON text of `to_dict`."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Provenance":
        """The inverse of `to_json`.

        Raises:
            InputError: too long, not JSON, or not a provenance.
        """
        if len(text) > MAX_BYTES:
            raise InputError("The provenance is damaged", why=f"it has more than {MAX_BYTES:,} characters")
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError("The provenance is damaged", why="it is not JSON") from error
        return cls.from_dict(values)


def _fits(name: str, value: Any) -> bool:
    if name == "seed":
        return value is None or (isinstance(value, int) and not isinstance(value, bool))
    return isinstance(value, str) or (name == "revision" and value is None)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


_IDENTITIES: "weakref.WeakKeyDictionary[Any, tuple[int, str]]" = weakref.WeakKeyDictionary()
_IDENTITIES_LOCK = threading.Lock()


def tokenizer_identity(tokenizer: Any) -> str:
    """Class, size and hash of a tokenizer, for example `TokenizersBackend, 4,096 tokens, 0f3a9c21b7d4`.

    The hash covers vocabulary, merges, normaliser and added tokens; "none" for a model without tokenizer.
    """
    if tokenizer is None:
        return "none"
    size = len(tokenizer)
    with _IDENTITIES_LOCK:
        known = _IDENTITIES.get(tokenizer)
    if known is not None and known[0] == size:
        return known[1]
    digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()[:12]
    identity = f"{type(tokenizer).__name__}, {size:,} tokens, {digest}"
    with _IDENTITIES_LOCK:  # a large vocabulary takes a tenth of a second; every result asks
        _IDENTITIES[tokenizer] = (size, identity)
    return identity
