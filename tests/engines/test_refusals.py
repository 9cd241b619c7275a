"""Bad requests, settings and models get one stable code; nothing else escapes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ephemeralml.wire.errors import ConfigurationError, EngineError, Error, ModelError
from ephemeralml.workers.engines import EmbedRequest, Engine, ModelFiles, load_engine
from ephemeralml.workers.engines.base import MAX_TEXT_BYTES, MAX_TEXTS
from ephemeralml.workers.engines.files import read_weights
from ephemeralml.workers.engines.openvino_engine import cpu_has_bf16, plan_batches
from ephemeralml.workers.engines.torch_engine import memory_folder


def bad(**fields: Any) -> EmbedRequest:
    return EmbedRequest(**{"texts": ("fine",), **fields})


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (bad(texts=()), "ENGINE_BAD_PARAMETERS"),
        (bad(texts=("a",) * (MAX_TEXTS + 1)), "ENGINE_BAD_PARAMETERS"),
        (bad(texts="abc"), "ENGINE_BAD_PARAMETERS"),
        (bad(texts=(1,)), "ENGINE_BAD_INPUT"),
        (bad(texts=("\udfff",)), "ENGINE_BAD_INPUT"),
        (bad(texts=("x" * (MAX_TEXT_BYTES + 1),)), "ENGINE_INPUT_TOO_LONG"),
        (bad(texts=("é" * (MAX_TEXT_BYTES // 2 + 1),)), "ENGINE_INPUT_TOO_LONG"),
        (bad(dimensions=0), "ENGINE_BAD_PARAMETERS"),
        (bad(dimensions=385), "ENGINE_BAD_PARAMETERS"),
        (bad(dimensions=True), "ENGINE_BAD_PARAMETERS"),
        (bad(dimensions=64.0), "ENGINE_BAD_PARAMETERS"),
        (bad(normalize=1), "ENGINE_BAD_PARAMETERS"),
        (bad(prompt=3), "ENGINE_BAD_INPUT"),
        (bad(prompt="p" * 9000), "ENGINE_INPUT_TOO_LONG"),
    ],
)
def test_requests(engine: Engine, request_: EmbedRequest, code: str) -> None:
    for refuse in (lambda: engine.check(request_), lambda: engine.run([bad(), request_])):
        with pytest.raises(EngineError) as caught:
            refuse()
        assert caught.value.code == code


def test_a_text_of_the_largest_size_is_truncated(engine: Engine) -> None:
    (result,) = engine.run([EmbedRequest(("word " * (MAX_TEXT_BYTES // 5),))])
    assert (result.tokens, result.truncated) == ([256], [True])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"backend": "auto"}, "ENGINE_UNKNOWN"),
        ({"backend": ""}, "ENGINE_UNKNOWN"),
        ({"threads": 0}, "ENGINE_BAD_SETTING"),
        ({"threads": True}, "ENGINE_BAD_SETTING"),
        ({"precision": "int8"}, "ENGINE_BAD_SETTING"),
        ({"backend": "torch", "precision": "int8"}, "ENGINE_BAD_SETTING"),
        ({"backend": "torch", "precision": "bf16"}, "ENGINE_PRECISION_UNAVAILABLE"),
    ],
)
def test_settings(files: ModelFiles, arguments: dict[str, Any], code: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_engine(**{"backend": "openvino", "files": files, **arguments})
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("backend", "missing", "extra"),
    [("openvino", "openvino", "worker"), ("torch", "sentence_transformers", "worker-torch")],
)
def test_a_missing_extra_is_named(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch, backend: Any, missing: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    for name in [
        n
        for n in sys.modules
        if n.endswith((".openvino_runtime", ".openvino_engine", ".bert_graph", ".torch_engine"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigurationError, match=rf"EXTRA_MISSING: .*ephemeralml\[{extra}\]'$"):
        load_engine(backend, files)


def changed(files: ModelFiles, name: str, **values: Any) -> ModelFiles:
    content = json.loads(bytes(files[name]))
    return {**files, name: json.dumps({**content, **values}).encode()}


def modules(*kinds: str) -> bytes:
    paths = ["", "1_Pooling", "2_Normalize", "3_More"]
    return json.dumps([{"idx": i, "path": paths[i], "type": kind} for i, kind in enumerate(kinds)]).encode()


ST = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("name", "change", "code"),
    [
        ("config.json", {"model_type": "t5"}, "MODEL_UNSUPPORTED"),
        ("config.json", {"hidden_act": "swish"}, "MODEL_UNSUPPORTED"),
        ("config.json", {"is_decoder": True}, "MODEL_UNSUPPORTED"),
        ("config.json", {"position_embedding_type": "relative_key"}, "MODEL_UNSUPPORTED"),
        ("config.json", {"max_position_embeddings": None}, "MODEL_UNSUPPORTED"),
        ("config.json", {"hidden_size": 385}, "MODEL_FILE_MALFORMED"),
        ("config.json", {"num_attention_heads": 0}, "MODEL_FILE_MALFORMED"),
        ("config.json", {"num_hidden_layers": 7}, "MODEL_FILE_MALFORMED"),
        ("config.json", {"intermediate_size": 1535}, "MODEL_FILE_MALFORMED"),
        ("config.json", {"layer_norm_eps": "x"}, "MODEL_FILE_MALFORMED"),
        ("config.json", {"vocab_size": 100}, "MODEL_FILE_MALFORMED"),
        ("config.json", {"max_position_embeddings": 9999, "model_type": "bert"}, ""),
        ("sentence_bert_config.json", {"max_seq_length": "long"}, "MODEL_UNSUPPORTED"),
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "MODEL_UNSUPPORTED"),
        ("1_Pooling/config.json", {"pooling_mode_cls_token": True}, "MODEL_UNSUPPORTED"),
        ("1_Pooling/config.json", {"include_prompt": False}, "MODEL_UNSUPPORTED"),
        ("modules.json", modules("os.system", ST + "Pooling"), "MODEL_UNSUPPORTED"),
        ("modules.json", modules(ST + "Transformer", ST + "Pooling", ST + "Dense"), "MODEL_UNSUPPORTED"),
        ("modules.json", b"{}", "MODEL_UNSUPPORTED"),
        ("modules.json", b"[1]", "MODEL_FILE_MALFORMED"),
        ("modules.json", b"[" * 100_000, "MODEL_FILE_MALFORMED"),
        ("modules.json", None, "MODEL_FILE_MISSING"),
        ("tokenizer.json", b"{}", "MODEL_FILE_MALFORMED"),
        ("tokenizer.json", b"\xff", "MODEL_FILE_MALFORMED"),
        ("tokenizer.json", None, "MODEL_FILE_MISSING"),
        ("model.safetensors", None, "MODEL_FILE_MISSING"),
        ("model.safetensors", b"", "MODEL_FILE_MALFORMED"),
    ],
)
def test_models(files: ModelFiles, name: str, change: Any, code: str) -> None:
    if isinstance(change, dict):
        model = changed(files, name, **change)
    else:
        model = {k: v for k, v in files.items() if k != name} | ({name: change} if change is not None else {})
    if not code:
        assert load_engine("openvino", model, precision="f32").max_tokens == 256
        return
    with pytest.raises(ModelError) as caught:
        load_engine("openvino", model)
    assert caught.value.code == code


def safetensors(header: Any, body: bytes = b"\x00" * 16) -> ModelFiles:
    encoded = json.dumps(header).encode()
    return {"m.safetensors": len(encoded).to_bytes(8, "little") + encoded + body}


@pytest.mark.parametrize(
    ("dtype", "shape", "offsets", "code"),
    [
        ("F32", [4], [0, 16], ""),
        ("F16", [2, 4], [0, 16], ""),
        ("F64", [2], [0, 16], "MODEL_UNSUPPORTED"),
        ("F8_E4M3", [16], [0, 16], "MODEL_UNSUPPORTED"),
        ("F32", [4], [4, 20], "MODEL_FILE_MALFORMED"),
        ("F32", [5], [0, 16], "MODEL_FILE_MALFORMED"),
        ("F32", [-4], [0, 16], "MODEL_FILE_MALFORMED"),
        ("F32", [4.0], [0, 16], "MODEL_FILE_MALFORMED"),
        ("F32", [4], [0], "MODEL_FILE_MALFORMED"),
        ("F32", [4], [-16, 0], "MODEL_FILE_MALFORMED"),
        (7, [4], [0, 16], "MODEL_FILE_MALFORMED"),
    ],
)
def test_weights(dtype: Any, shape: Any, offsets: Any, code: str) -> None:
    files = safetensors({"t": {"dtype": dtype, "shape": shape, "data_offsets": offsets}})
    if not code:
        assert list(read_weights(files)["t"].shape) == shape
        return
    with pytest.raises(ModelError) as caught:
        read_weights(files)
    assert caught.value.code == code


@given(st.binary(max_size=200))
def test_random_weights_raise_only_our_errors(data: bytes) -> None:
    for content in (data, len(data).to_bytes(8, "little") + data):
        with pytest.raises(Error):
            read_weights({"m.safetensors": content})


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 1000))
@settings(max_examples=50)
def test_batches_hold_every_item_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@pytest.mark.parametrize(
    ("flags", "found"),
    [("sse2 avx512_bf16 x", True), ("amx_bf16", True), ("avx512f avx_bf16x", False), ("", False)],
)
def test_bf16_is_read_from_the_cpu_flags(tmp_path: Path, flags: str, found: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert cpu_has_bf16(tmp_path / "cpuinfo") is found
    assert cpu_has_bf16(tmp_path / "none") is False


def test_memory_folder_is_private_and_gone_afterwards() -> None:
    files: ModelFiles = {
        "config.json": b"{}",
        "1_Pooling/config.json": memoryview(b"[]"),
        "evil.bin": b"",
        "x.py": b"",
    }
    with memory_folder(files) as folder:
        assert folder.stat().st_mode & 0o077 == 0
        names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
        assert names == ["1_Pooling/config.json", "config.json"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "", "a/../../x.json", "a\x00.json"])
def test_memory_folder_refuses_names_that_leave_it(name: str) -> None:
    with pytest.raises(ModelError, match="MODEL_FILE_MALFORMED"), memory_folder({name: b""}):
        pass


def test_memory_folder_refuses_a_disk(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="ENGINE_NO_MEMORY_FOLDER"), memory_folder({}, tmp_path):
        pass
