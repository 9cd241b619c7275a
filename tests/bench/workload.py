"""What every part of the bench computes on: one model, and texts of an exact number of tokens.

The model is all-MiniLM-L6-v2 where its weights are installed. Where they are not, one of the same shape is
made with random weights: every figure but the cosines means the same.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from ephemeralml.producer.lab import minilm_folder
from ephemeralml.wire.errors import ConfigurationError

ROOT: Final = Path(__file__).resolve().parents[2]
RESULTS: Final = ROOT / "bench-results"
#: Tokens of the sentence that is measured alone and in batches, special tokens included.
TOKENS: Final = 24
BATCH: Final = 32
#: The shape of all-MiniLM-L6-v2: huggingface.co/sentence-transformers/all-MiniLM-L6-v2, config.json.
CONFIG: Final = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "hidden_act": "gelu",
    "attention_probs_dropout_prob": 0.1,
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
}
_SPECIAL: Final = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def sentences() -> list[str]:
    """Return the 200 sentences of the examples."""
    return (ROOT / "examples" / "sentences.txt").read_text(encoding="utf-8").splitlines()


@cache
def model_folder() -> tuple[Path, str]:
    """Return the folder of the model and what its weights are: ``"original"`` or ``"random"``."""
    try:
        return minilm_folder(), "original"
    except ConfigurationError:
        folder = RESULTS / "random-model"
        if not (folder / "modules.json").exists():
            write_random_model(folder)
        return folder, "random"


@cache
def _tokenizer() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(model_folder()[0] / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def texts_of(tokens: int, count: int) -> list[str]:
    """Return different texts of exactly ``tokens`` tokens each, special tokens included."""
    words = [word for word in " ".join(sentences()).replace(".", "").split() if _length(word) == 3]
    wanted = tokens - 2
    step = max(1, (len(words) - wanted) // count)
    texts = [" ".join(words[n * step : n * step + wanted]) for n in range(count)]
    if {_length(text) for text in texts} != {tokens} or len(set(texts)) != count:
        raise SystemExit(f"no {count} texts of {tokens} tokens can be made from the examples")
    return texts


def _length(text: str) -> int:
    return len(_tokenizer().encode(text).ids)


def flops(tokens: int) -> float:
    """Return floating-point operations of the matrix products of one text (a multiply-add is two)."""
    width, inner, layers = CONFIG["hidden_size"], CONFIG["intermediate_size"], CONFIG["num_hidden_layers"]
    assert isinstance(width, int)
    assert isinstance(inner, int)
    assert isinstance(layers, int)
    dense = 4 * width * width + 2 * width * inner
    return 2.0 * layers * (tokens * dense + 2 * tokens * tokens * width)


# ------------------------------------------------------------------------- random weights


def write_random_model(folder: Path) -> None:
    """Write a model of MiniLM's shape whose words are those of the examples."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    named: dict[str, Any] = {
        "config.json": CONFIG,
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 256},
        "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
    }
    for name, content in named.items():
        (folder / name).write_text(json.dumps(content))
    _write_tokenizer(folder)
    _write_weights(folder / "model.safetensors")
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))  # last: it marks the folder as whole


def _write_tokenizer(folder: Path) -> None:
    words = sorted({word.lower().strip(".,") for text in sentences() for word in text.split()})
    vocabulary = [*_SPECIAL, *words]
    vocabulary += [f"[unused{n}]" for n in range(30522 - len(vocabulary))]
    numbered = {word: index for index, word in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.WordPiece(numbered, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")


def _shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (30522, 384),
        "embeddings.position_embeddings.weight": (512, 384),
        "embeddings.token_type_embeddings.weight": (2, 384),
        "embeddings.LayerNorm.weight": (384,),
        "embeddings.LayerNorm.bias": (384,),
    }
    dense = {f"attention.self.{part}": (384, 384) for part in ("query", "key", "value")}
    dense |= {
        "attention.output.dense": (384, 384),
        "intermediate.dense": (1536, 384),
        "output.dense": (384, 1536),
    }
    for layer in range(6):
        for name, shape in dense.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = shape
            shapes[f"encoder.layer.{layer}.{name}.bias"] = shape[:1]
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            for part in ("weight", "bias"):
                shapes[f"encoder.layer.{layer}.{name}.{part}"] = (384,)
    return shapes


def _write_weights(path: Path) -> None:
    """Write safetensors (github.com/huggingface/safetensors: length, JSON header, numbers)."""
    random = np.random.default_rng(7)
    header: dict[str, Any] = {}
    body: list[bytes] = []
    at = 0
    for name, shape in _shapes().items():
        numbers = random.normal(0, 0.05, shape).astype("<f4")
        if name.endswith("LayerNorm.weight"):
            numbers = np.ones(shape, "<f4")
        body.append(numbers.tobytes())
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + len(body[-1])]}
        at += len(body[-1])
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + b"".join(body))
