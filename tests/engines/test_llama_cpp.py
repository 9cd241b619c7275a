"""llama.cpp on a small random GGUF model made on the fly; where the library is installed."""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ephemeralml.wire.errors import ConfigurationError, ModelError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.workers.engines import EngineSettings, load_any_engine
from ephemeralml.workers.engines.conformance import check_engine
from ephemeralml.workers.engines.generate import GenerateRequest
from ephemeralml.workers.engines.generate_loop import GenerateLoop
from ephemeralml.workers.engines.llama_cpp import BytesDecoder
from ephemeralml.workers.models.file_kinds import check_file

from .generate_models import CHAT_TEMPLATE, byte_level_tokenizer

INSTALLED = importlib.util.find_spec("llama_cpp") is not None and importlib.util.find_spec("gguf") is not None
needs_library = pytest.mark.skipif(not INSTALLED, reason="needs llama-cpp-python and gguf")


@lru_cache(maxsize=1)
def gguf_files(folder: Path) -> dict[str, bytes]:
    """Return a Llama of random weights as one GGUF file, tokenizer and chat template inside."""
    import gguf  # type: ignore[import-not-found, unused-ignore]

    tokenizer = json.loads(byte_level_tokenizer().to_str())
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    special = {item["content"] for item in tokenizer["added_tokens"]}
    size, width, blocks, heads, shared = len(vocabulary), 64, 2, 4, 2
    path = folder / "model.gguf"
    writer: Any = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_block_count(blocks)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(shared)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_file_type(0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token in special else 1 for token, _ in vocabulary])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(True)
    writer.add_chat_template(CHAT_TEMPLATE)
    random = np.random.default_rng(3)

    def tensor(name: str, *shape: int) -> None:
        values = np.ones(shape) if "norm" in name else random.normal(0, 0.6, shape)
        writer.add_tensor(name, values.astype(np.float32))

    tensor("token_embd.weight", size, width)
    tensor("output_norm.weight", width)
    tensor("output.weight", size, width)
    for block in range(blocks):
        for name in ("attn_norm", "ffn_norm"):
            tensor(f"blk.{block}.{name}.weight", width)
        for name, rows in (("q", width), ("k", width * shared // heads), ("v", width * shared // heads)):
            tensor(f"blk.{block}.attn_{name}.weight", rows, width)
        tensor(f"blk.{block}.attn_output.weight", width, width)
        for name in ("gate", "up"):
            tensor(f"blk.{block}.ffn_{name}.weight", 2 * width, width)
        tensor(f"blk.{block}.ffn_down.weight", width, 2 * width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return {"model.gguf": path.read_bytes()}


@needs_library
def test_the_engine_conforms(tmp_path: Path) -> None:
    files = gguf_files(tmp_path)
    check_file("model.gguf", memoryview(files["model.gguf"]))
    engine = load_any_engine("llama", files, EngineSettings(threads=1))
    assert isinstance(engine, GenerateLoop)
    assert (engine.name, engine.precision, engine.max_tokens) == ("llama.cpp", "f32", 256)
    parameters = GenerateParameters(max_tokens=30)
    done = engine.submit(GenerateRequest("Once upon a time", parameters, 5)).result(60)
    assert done.output_tokens
    assert [finding for finding in check_engine(engine) if not finding.passed] == []


@needs_library
def test_settings_beyond_the_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ENGINE_BAD_SETTING"):
        load_any_engine("llama", gguf_files(tmp_path), EngineSettings(context_tokens=512))
    with load_any_engine("llama", gguf_files(tmp_path), EngineSettings(context_tokens=128)) as engine:  # type: ignore[union-attr]
        assert engine.max_tokens <= 256


@needs_library
@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({}, "MODEL_FILE_MISSING"),
        ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, "MODEL_FILE_MISSING"),
        ({"a.gguf": b"PK\3\4 and so on"}, "MODEL_FILE_MALFORMED"),
        ({"a.gguf": b"GGUF" + bytes(60)}, "MODEL_UNSUPPORTED"),
    ],
)
def test_what_is_no_model_is_refused(files: dict[str, bytes], code: str) -> None:
    with pytest.raises(ModelError, match=code):
        load_any_engine("llama", files, EngineSettings())


@pytest.mark.skipif(INSTALLED, reason="the library is installed")
def test_the_missing_extra_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"EXTRA_MISSING.*worker-llama"):
        load_any_engine("llama", {}, EngineSettings())


def test_bytes_become_whole_characters() -> None:
    pieces = BytesDecoder(lambda token: bytes([token]))
    assert [pieces.push(byte) for byte in "ü世a".encode()] == ["", "ü", "", "", "世", "a"]
    assert pieces.push(0xE4) == ""
    assert pieces.flush() == "\N{REPLACEMENT CHARACTER}"
