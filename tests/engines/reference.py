"""Run as a script: what sentence-transformers itself answers, and our torch engine beside it.

``reference.py JOBS.json OUT.npz FOLDER``: reads the texts, writes the answers, leaves small random models
of other kinds (pooled by their first token, RoBERTa, half precision, a default prompt) in ``FOLDER``. One
process for the whole test session, so that torch is imported once and never in pytest's own process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from sentence_transformers import SentenceTransformer

from ephemeralml.workers.engines import EmbedRequest, load_engine
from ephemeralml.workers.engines.torch_engine import SHARED_MEMORY

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def reference(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}
    )


def write_model(
    source: Path, folder: Path, encoder: Any, pooling: dict[str, Any], prompts: dict[str, Any]
) -> None:
    encoder.save_pretrained(folder)
    for name in TOKENIZER:
        shutil.copy(source / name, folder / name)
    parts = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(parts)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": 40, "do_lower_case": True})
    )
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))


def write_models(source: Path, target: Path) -> None:
    torch.manual_seed(7)
    sizes: dict[str, Any] = {
        "vocab_size": 30522,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    mean = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    cls = {"embedding_dimension": 32, "pooling_mode": "cls"}
    prompts = {"prompts": {"passage": "passage: "}, "default_prompt_name": "passage"}
    bert = transformers.BertModel(transformers.BertConfig(**sizes))
    write_model(source, target / "cls", bert, cls, {})
    write_model(source, target / "prompt", bert, mean, prompts)
    tanh: Any = transformers.BertModel(transformers.BertConfig(**sizes, hidden_act="gelu_new"))
    write_model(source, target / "half", tanh.half(), mean, {})
    write_model(source, target / "brain", tanh.bfloat16(), mean, {})
    roberta = transformers.RobertaConfig(**sizes, pad_token_id=1, type_vocab_size=1)
    write_model(source, target / "roberta", transformers.RobertaModel(roberta), mean, {})


def ours(files: dict[str, bytes], texts: list[str]) -> dict[str, Any]:
    engine = load_engine("torch", files)
    requests = [
        EmbedRequest(tuple(texts)),
        EmbedRequest(tuple(texts[:20]), dimensions=64),
        EmbedRequest(tuple(texts[:20]), dimensions=64, normalize=False),
        EmbedRequest(tuple(texts[:20]), prompt="query: "),
    ]
    answers = engine.run(requests)
    named = dict(zip(("all", "short", "raw", "prompt"), answers, strict=True))
    vectors = {
        f"torch_{name}": np.frombuffer(b"".join(a.vectors), "<f4").reshape(len(a.vectors), -1)
        for name, a in named.items()
    }
    left = len(list(SHARED_MEMORY.glob(f"ephemeralml-{os.getpid()}-*")))
    facts = [engine.max_tokens, engine.model_dimensions, sum(answers[0].truncated), left]
    return {**vectors, "torch_tokens": answers[0].tokens, "torch_facts": facts}


def main(jobs: Path, out: Path, target: Path) -> None:
    job = json.loads(jobs.read_text())
    source, texts = Path(job["model"]), job["texts"]
    model = reference(source)
    encode: Any = model.encode
    some = texts[:20]
    answers = {
        "all": encode(texts, normalize_embeddings=True),
        "short": encode(some, normalize_embeddings=True, truncate_dim=64),
        "raw": encode(some, truncate_dim=64),
        "prompt": encode(some, normalize_embeddings=True, prompt="query: "),
        "tokens": [len(ids) for ids in model.tokenizer(texts, truncation=True)["input_ids"]],
        "full": [len(ids) for ids in model.tokenizer(texts)["input_ids"]],
    }
    files = {str(p.relative_to(source)): p.read_bytes() for p in source.rglob("*") if p.is_file()}
    answers |= ours(files, texts)
    write_models(source, target)
    for folder in target.iterdir():
        small: Any = reference(folder)
        answers[f"model_{folder.name}"] = small.encode(texts[::3])
    np.savez(out, **answers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
