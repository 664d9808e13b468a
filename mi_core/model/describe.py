"""A loaded model in words: what `python -m mi_core info MODEL` prints."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mi_core.model.discovery import find
from mi_core.model.memory import free_bytes
from mi_core.model.progress import format_bytes, format_count
from mi_core.model.spec import BYTES_PER_NUMBER
from mi_core.sites import SITES

if TYPE_CHECKING:
    from mi_core.model.model import LoadedModel


def describe_model(model: "LoadedModel") -> str:
    """Family, sizes, sites with their shapes, proofs, memory and files, as lines of text."""
    parts = (_head(model), _sizes(model), _sites(model), _proofs(model), _memory(model), _files(model))
    return "\n\n".join("\n".join(part) for part in parts)


def _head(model: "LoadedModel") -> Iterator[str]:
    spec, family = model.spec, model.structure.family
    count = sum(parameter.numel() for parameter in model.hf.parameters())
    yield spec.describe()
    yield f"  family       {family.name}" + (
        "" if model.structure.known else " (no entry of its own: structure was probed)"
    )
    yield f"  parameters   {count:,} ({format_count(count)})"
    yield f"  device       {model.device}, {str(model.dtype).removeprefix('torch.')}"
    yield f"  weights      {model.fingerprint}"
    yield f"  loaded in    {model.load_seconds:.2f} s"


def _sizes(model: "LoadedModel") -> Iterator[str]:
    yield "sizes"
    for name in model.dims.__slots__:
        yield f"  {name:<12} {getattr(model.dims, name):,}"


def _sites(model: "LoadedModel") -> Iterator[str]:
    structure = model.structure
    yield "sites (shapes for a prompt of pos tokens)"
    for name, site in SITES.items():
        if name in structure.missing:
            yield f"  {name:<12} not available: {structure.missing[name]}"
            continue
        n_pos = -1  # marks the axes whose size the prompt decides
        sizes = zip(site.axes, structure.shape(name, n_pos), strict=True)
        shape = ", ".join(axis if size == n_pos else f"{axis} {size}" for axis, size in sizes)
        yield f"  {name:<12} [{shape}]" + (f" in {model.dims.n_layers} layers" if site.per_layer else "")


def _proofs(model: "LoadedModel") -> Iterator[str]:
    report = model.report
    failed = sum(not check.passed for check in report.checks)
    yield f"proofs at load ({len(report.checks)} in {report.seconds:.2f} s, {failed or 'none'} failed)"
    for check in report.checks:
        off = f"; switched off: {', '.join(check.switched_off)}" if check.switched_off else ""
        yield f"  {'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}{off}"
    yield f"  sweeps {'replay single layers' if report.replay else 'run the whole model for every variant'}"


def _memory(model: "LoadedModel") -> Iterator[str]:
    found = find(model.spec.name, model.spec.revision)
    yield "memory (weights and one forward pass over 128 tokens)"
    for dtype in BYTES_PER_NUMBER:
        yield f"  {dtype:<12} ~{format_bytes(found.need(dtype).total)}"
    yield f"  free now     {format_bytes(free_bytes(str(model.device)))} on {model.device}"


def _files(model: "LoadedModel") -> Iterator[str]:
    found = find(model.spec.name, model.spec.revision)
    yield f"files in {found.path}"
    for path in sorted(Path(found.path).iterdir()):
        if path.is_file():
            yield f"  {format_bytes(path.stat().st_size):>8}  {path.name}"
