"""Run as a script: write a sentence-transformers model as ONNX, pooling and scaling included.

``export_onnx.py MODEL TARGET SITE``: ``SITE`` is a folder of packages where ``onnx`` lies, which torch's
exporter asks for and our own environment does not have.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any


def main(model: str, target: str, site: str) -> None:
    """Export."""
    sys.path.append(site)
    torch: Any = import_module("torch")
    library: Any = import_module("sentence_transformers")
    loaded = library.SentenceTransformer(
        model,
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": "float32", "attn_implementation": "eager"},
    )
    encoder = loaded[0].auto_model.eval()

    class Whole(torch.nn.Module):  # type: ignore[misc]
        """Token ids and mask in, vectors of length 1 out."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder = encoder

        def forward(self, ids: Any, mask: Any) -> Any:
            hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
            weights = mask.unsqueeze(-1).float()
            return torch.nn.functional.normalize((hidden * weights).sum(1) / weights.sum(1), dim=1)

    ids = torch.ones(2, 7, dtype=torch.long)
    dynamic = {name: {0: "texts", 1: "tokens"} for name in ("ids", "mask")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Whole(),
            (ids, ids),
            target,
            input_names=["ids", "mask"],
            output_names=["vectors"],
            dynamic_axes=dynamic,
            dynamo=False,
            opset_version=17,
        )


if __name__ == "__main__":
    main(*sys.argv[1:4])
