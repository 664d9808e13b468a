"""Run by test_transformer_lens.py in a process of its own: the patching grids of transformer-lens.

    python transformer_lens_oracle.py FOLDER REQUEST_JSON OUTPUT_NPZ

The request holds `clean` and `corrupted` token ids, `answer` and `distractor` ids, and grid names.
A process of its own, because importing transformer-lens replaces transformers' eager attention for everybody
(its issue 1795).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformer_lens import patching  # pyright: ignore[reportMissingImports]  # optional
from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]  # same


def main(folder: str, request: str, output: str) -> None:
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    torch.set_default_dtype(getattr(torch, asked["dtype"]))  # grids are stored in the default dtype
    bridge = TransformerBridge.boot_transformers(folder, device="cpu", dtype=getattr(torch, asked["dtype"]))
    bridge.eval()

    def metric(logits: torch.Tensor) -> torch.Tensor:
        return logits[0, -1, asked["answer"]] - logits[0, -1, asked["distractor"]]

    clean, corrupted = torch.tensor([asked["clean"]]), torch.tensor([asked["corrupted"]])
    with torch.no_grad():
        _, cache = bridge.run_with_cache(clean)
        grids = {
            name: getattr(patching, f"get_act_patch_{name}")(bridge, corrupted, cache, metric).numpy()
            for name in asked["grids"]
        }
        grids["clean"], grids["corrupted"] = metric(bridge(clean)).numpy(), metric(bridge(corrupted)).numpy()
    np.savez(output, allow_pickle=False, **grids)


if __name__ == "__main__":
    main(*sys.argv[1:])
