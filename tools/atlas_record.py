"""How a figure is recorded: with its threshold, whether it passes, and what it is compared with."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any


def check(name: str, value: float, relation: str, threshold: float, **more: Any) -> dict[str, Any]:
    """One figure with its threshold and whether it passes; ``more`` holds its control, unit and parts."""
    passed = {">=": value >= threshold, ">": value > threshold, "<=": value <= threshold}[relation]
    record = {"name": name, "value": value, "relation": relation, "threshold": threshold, "pass": passed}
    return record | more


def rounded(value: Any) -> Any:
    """Floats to six significant digits, for a stable and readable file."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
