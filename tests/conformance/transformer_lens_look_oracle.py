"""Run by test_look_transformer_lens.py in a process of its own: the numbers of transformer-lens.

    python transformer_lens_look_oracle.py FOLDER REQUEST_JSON OUTPUT_NPZ

The request holds `tokens`, `answer` and `distractor` ids. Norm gains are folded, because `logit_attrs` reads
directions from W_U alone; nothing else is processed, so that biases stay where the model has them.
A process of its own, because importing transformer-lens replaces transformers' eager attention for everybody
(its issue 1795).
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]  # optional


def main(folder: str, request: str, output: str) -> None:
    asked = json.loads(Path(request).read_text(encoding="utf-8"))
    tokens = torch.tensor([asked["tokens"]])
    bridge = TransformerBridge.boot_transformers(folder, device="cpu", dtype=torch.float32)
    bridge.enable_compatibility_mode(
        center_writing_weights=False, center_unembed=False, fold_value_biases=False
    )
    bridge.eval()
    with torch.no_grad():
        logits, cache = bridge.run_with_cache(tokens)
        stream = cache.accumulated_resid(layer=-1, incl_mid=True)
        parts, labels = cache.decompose_resid(layer=-1, return_labels=True)
        heads = cache.stack_head_results(layer=-1)
        assert isinstance(heads, torch.Tensor)  # a tuple only where labels are asked for
        attributed = {
            name: cache.logit_attrs(stack, tokens=asked["answer"], incorrect_tokens=asked["distractor"])
            for name, stack in (("parts", parts), ("heads", heads))
        }
        layers = bridge.cfg.n_layers
        found = {
            "lens": torch.stack([bridge.unembed(bridge.ln_final(one))[0] for one in stream]).log_softmax(-1),
            "parts": attributed["parts"][:, 0, -1],
            "heads": attributed["heads"][:, 0, -1].reshape(layers, -1),
            "pattern": torch.stack([cache["pattern", layer][0] for layer in range(layers)]),
            "logits": logits[0],
        }
    arrays = {name: value.numpy() for name, value in found.items()}
    np.savez(output, allow_pickle=False, **arrays, labels=np.array(labels))


if __name__ == "__main__":
    main(*sys.argv[1:])
