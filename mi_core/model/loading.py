"""From a name to a Hugging Face model with its weights in place: the phases find, read and place.

transformers builds the model and converts names and number formats; this module hands it tensors that are
read one by one from safetensors, so progress is counted in real bytes and memory peaks at the finished model.
Code from a repository is never run, pickles are never read, and nothing is fetched unless the caller allows a
download.

What remains (the phase check: resolve, install attention, probe) is `mi_core.engine.load_model`.
"""

import gc
import logging
import shutil
import tempfile
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_core.errors import ModelError, OutOfMemory
from mi_core.model.background import watch
from mi_core.model.checkpoint import Checkpoint, corrupt, read_checkpoint
from mi_core.model.discovery import FoundModel, find
from mi_core.model.hub import download
from mi_core.model.hub_cache import is_hub_id
from mi_core.model.memory import check_fits
from mi_core.model.progress import OnPhase, format_bytes
from mi_core.model.quiet import quiet_transformers
from mi_core.model.reading import fingerprint, open_weights
from mi_core.model.spec import ModelSpec, choose_device, torch_dtype
from mi_core.model.tokenizer import first_line, load_tokenizer

logger = logging.getLogger(__name__)

# Fields of a config.json that make transformers fetch, patch or distribute something while it builds the
# model.
_ACTING_FIELDS = ("quantization_config", "fusion_config", "distributed_config", "transformers_weights")


@dataclass(frozen=True, slots=True)
class ReadModel:
    """A Hugging Face model that has been read but not proved.

    Attributes:
        hf: the causal language model, weights in place, in evaluation mode.
        tokenizer: its fast tokenizer.
        fingerprint: hub commit, or 16 hexadecimal digits of a hash of the weights.
        found: where it came from.
    """

    hf: Any
    tokenizer: Any
    fingerprint: str
    found: FoundModel


def read_model(
    spec: ModelSpec,
    report: OnPhase,
    *,
    allow_download: bool = False,
    reclaimable: int = 0,
    before_read: Callable[[], None] | None = None,
) -> ReadModel:
    """Find a model, read its weights and place them on their device.

    Args:
        spec: what is wanted.
        report: called with the phases "find", "read" and "place"; may raise Cancelled.
        allow_download: whether a hub id that is not here may be fetched.
        reclaimable: bytes of memory that `before_read` gives back.
        before_read: called once everything but the weights is known to be good, just before memory is taken.

    Raises:
        InputError: the name or revision cannot be one.
        ModelError: every kind; the sentence says what to do.
        OutOfMemory: the device ran out of memory in spite of the estimate.
    """
    report("find", 0.0, f"looking for {spec.text}")
    found = _find_here(spec, allow_download)
    device = choose_device(spec)  # before a download, which takes longer than its refusal
    if found is None:
        # The second half of the phase is config and tokenizer.
        download(spec.name, spec.revision, on_phase=lambda phase, share, text: report(phase, share / 2, text))
        found = find(spec.name, spec.revision)
    check_fits(spec.name, found.parameters, found.config(), spec, device, reclaimable=reclaimable)
    report("find", 0.5, "reading the tokenizer")
    with quiet_transformers():
        config, model_class = _config_of(found)
        tokenizer = load_tokenizer(found)
    checkpoint = read_checkpoint(Path(found.path), found.name)
    report("find", 1.0, f"found {found.describe()}")
    if before_read is not None:
        before_read()
    hf, digest = _read(spec, device, config, model_class, checkpoint, found, report)
    report("place", 1.0, f"on {device}" if spec.device_map is None else "spread over devices")
    return ReadModel(hf, tokenizer, digest, found)


def _find_here(spec: ModelSpec, allow_download: bool) -> FoundModel | None:
    """The model on this machine; None if it is not here and may be fetched."""
    try:
        return find(spec.name, spec.revision)
    except ModelError as error:
        if error.kind != "missing" or not allow_download or not is_hub_id(spec.name):
            raise
    return None


def _config_of(found: FoundModel) -> tuple[Any, Any]:
    """The configuration, cleaned of what would act, and the class that it names.

    Raises:
        ModelError: kind "unsupported" or "corrupt".
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if found.model_type not in CONFIG_MAPPING:
        own_code = "auto_map" in found.config()
        raise ModelError(
            f"Models of type {found.model_type!r} are not supported", kind="unsupported",
            why="they need code from their repository, which Lantern never runs" if own_code
            else "the installed transformers does not know them",
            fix="Choose a model that transformers itself has" if own_code else "Install a newer transformers",
        )  # fmt: skip
    try:
        config = AutoConfig.from_pretrained(found.path, local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, AttributeError, OSError, StrictDataclassError) as error:
        why = f"transformers refuses its config.json ({first_line(error)})"
        raise corrupt(f"{found.name!r} cannot be read", why) from error
    model_class = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if model_class is None:
        raise ModelError(
            f"{found.name!r} is not a causal language model", kind="not_causal_lm",
            why=f"transformers has no causal language model of type {found.model_type!r}",
            fix="Choose a decoder such as GPT-2, Llama, Qwen or Gemma",
        )  # fmt: skip
    for field in _ACTING_FIELDS:
        if hasattr(config, field):
            delattr(config, field)
    return config, model_class


def _read(
    spec: ModelSpec, device: str, config: Any, model_class: Any, checkpoint: Checkpoint, found: FoundModel,
    report: OnPhase,
) -> tuple[Any, str]:  # fmt: skip
    """Read weights and fingerprint in a helper thread while this one tells the progress."""
    hashed = 0 if found.commit else sum(file.path.stat().st_size for file in checkpoint.files)
    total = max(1, checkpoint.bytes + hashed)
    started = time.perf_counter()

    def tell(done: int) -> None:
        rate = done / max(1e-9, time.perf_counter() - started)
        text = f"{format_bytes(done)} of {format_bytes(total)}, {format_bytes(rate)}/s"
        report("read", min(1.0, done / total), text)

    def work(on_bytes: Callable[[int], None]) -> tuple[Any, str]:
        digest = found.commit or fingerprint(checkpoint, on_bytes)
        with open_weights(checkpoint, on_bytes) as tensors:
            return _build(spec, device, config, model_class, tensors, found.name), digest

    hf = None
    try:
        hf, digest = watch(work, tell)
        return _placed(hf, spec, device, report), digest
    except BaseException as error:
        hf = None
        let_go(error)
        raise


def _build(spec: ModelSpec, device: str, config: Any, model_class: Any, tensors: Any, name: str) -> Any:
    """Let transformers build the model from lazy tensors, and check that every weight got its value."""
    placement, offload = _placement(spec, device)
    with quiet_transformers() as log:
        try:
            hf, info = model_class.from_pretrained(
                None, config=config, state_dict=tensors, dtype=torch_dtype(spec.dtype),
                output_loading_info=True, ignore_mismatched_sizes=True, use_safetensors=True,
                local_files_only=True, attn_implementation="eager", experts_implementation="eager",
                **placement,
            )  # fmt: skip
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            # transformers hides what went wrong with a tensor in its log.
            text = "\n".join([str(error), *log])
            if any(sign in text for sign in ("OutOfMemoryError", "out of memory", "t allocate memory")):
                raise OutOfMemory(
                    f"{name!r} does not fit on {device}", why="memory ran out while it was read",
                    fix="Choose a smaller number format, or another device",
                ) from error  # fmt: skip
            raise corrupt(
                f"{name!r} cannot be read", f"transformers refuses it ({first_line(error)})"
            ) from error
    if offload is not None:
        weakref.finalize(hf, shutil.rmtree, offload, ignore_errors=True)
    check_weights(name, info, set(hf.state_dict()))
    return hf


def _placement(spec: ModelSpec, device: str) -> tuple[dict[str, Any], str | None]:
    """Arguments of `from_pretrained` that say where weights go, and the folder for what goes to the disk."""
    from transformers.utils.import_utils import is_accelerate_available

    if spec.device_map == "auto":
        if not is_accelerate_available():
            raise ModelError(
                "A device map needs accelerate",
                kind="device",
                why="it is not installed",
                fix="pip install accelerate",
            )
        offload = tempfile.mkdtemp(prefix="lantern-offload-")
        return {"device_map": "auto", "offload_folder": offload}, offload
    # Straight to the device: without accelerate the whole model passes through main memory first.
    return ({"device_map": {"": device}} if device != "cpu" and is_accelerate_available() else {}), None


def _placed(hf: Any, spec: ModelSpec, device: str, report: OnPhase) -> Any:
    """Move what is not yet on the device, block by block, so that it can be stopped."""
    report("place", 0.0, f"to {device}")
    if spec.device_map == "auto":
        return hf
    parts = [module for module in hf.modules() if next(module.parameters(recurse=False), None) is not None]
    for number, module in enumerate(parts):
        if next(module.parameters(recurse=False)).device.type != device.partition(":")[0]:
            report("place", number / len(parts), f"to {device}")
            module.to(device)
    return hf.to(device)


def check_weights(name: str, info: dict[str, Any], expected: set[str]) -> None:
    """Refuse a checkpoint that does not fill its model: random numbers would look like weights.

    Args:
        name: of the model.
        info: what transformers reports of its loading.
        expected: names of the model's own tensors.

    Raises:
        ModelError: kind "corrupt": weights missing, of another shape, or of layers that the config does not
            have.
    """
    missing, mismatched = sorted(info["missing_keys"]), sorted(info["mismatched_keys"])
    if missing:
        raise corrupt(f"{name!r} is incomplete", f"the weights lack {_named(missing)}")
    if mismatched:
        key, found, wanted = mismatched[0]
        raise corrupt(
            f"The weights of {name!r} do not fit its config.json",
            f"{key} has shape {tuple(found)}, the config says {tuple(wanted)}",
        )
    patterns = {_pattern(key) for key in expected}
    surplus = sorted(key for key in info["unexpected_keys"] if _pattern(key) in patterns)
    if surplus:
        raise corrupt(
            f"The weights of {name!r} do not fit its config.json", f"it has no place for {_named(surplus)}"
        )
    if info["unexpected_keys"]:
        logger.warning(
            "%s: weights that the model does not use: %s", name, _named(sorted(info["unexpected_keys"]))
        )


def _named(keys: list[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{keys[0]} and {len(keys) - 1} more"


def _pattern(key: str) -> str:
    """A tensor's name without its layer number."""
    return ".".join("*" if part.isdigit() else part for part in key.split("."))


def let_go(error: BaseException) -> None:
    """Free what a load that failed has read: the frames of its traceback still name the weights."""
    traceback.clear_frames(error.__traceback__)
    release_memory()


def release_memory() -> None:
    """Give memory that nothing uses back to the device: Python's cycles, then torch's cache."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
