"""Every backend gives what sentence-transformers gives, for every text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ephemeralml.wire.errors import ConfigurationError
from ephemeralml.workers.engines import EmbedRequest, EmbedResult, Engine, ModelFiles, load_engine
from ephemeralml.workers.engines.openvino_engine import cpu_has_bf16

from .conftest import Arrays
from .sentences import TEXTS

F32, BF16 = 0.9999, 0.9998
Floats = NDArray[np.float32]


def matrix(result: EmbedResult) -> Floats:
    return np.frombuffer(b"".join(result.vectors), "<f4").reshape(len(result.vectors), -1)


def cosines(left: NDArray[Any], right: NDArray[Any]) -> NDArray[Any]:
    a, b = left.astype(np.float64), right.astype(np.float64)
    found: NDArray[Any] = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return found


def variants() -> dict[str, EmbedRequest]:
    some = TEXTS[:20]
    return {
        "all": EmbedRequest(TEXTS),
        "short": EmbedRequest(some, dimensions=64),
        "raw": EmbedRequest(some, dimensions=64, normalize=False),
        "prompt": EmbedRequest(some, prompt="query: "),
    }


def answers(engine: Engine, requests: Sequence[EmbedRequest]) -> list[Floats]:
    return [matrix(result) for result in engine.run(requests)]


def test_openvino_in_float32_equals_the_reference(engine: Engine, reference: Arrays) -> None:
    named = variants()
    for name, got in zip(named, answers(engine, list(named.values())), strict=True):
        assert got.shape == reference[name].shape
        assert cosines(got, reference[name]).min() >= F32
        assert np.abs(got - reference[name]).max() < 1e-4


def test_torch_equals_the_reference(reference: Arrays) -> None:
    for name in variants():
        assert cosines(reference[f"torch_{name}"], reference[name]).min() >= F32
        assert np.abs(reference[f"torch_{name}"] - reference[name]).max() < 1e-5


def test_auto_takes_bf16_where_the_cpu_has_it(files: ModelFiles, reference: Arrays) -> None:
    chosen = load_engine("openvino", files)
    (got,) = answers(chosen, [EmbedRequest(TEXTS)])
    if cpu_has_bf16():
        assert chosen.precision == "bf16"
        assert cosines(got, reference["all"]).min() >= BF16
    else:
        assert chosen.precision == "f32"
        assert cosines(got, reference["all"]).min() >= F32
        with pytest.raises(ConfigurationError, match="ENGINE_PRECISION_UNAVAILABLE"):
            load_engine("openvino", files, precision="bf16")


def test_tokens_and_truncation_are_the_references(engine: Engine, reference: Arrays) -> None:
    (result,) = engine.run([EmbedRequest(TEXTS)])
    assert result.tokens == reference["tokens"].tolist() == reference["torch_tokens"].tolist()
    assert max(result.tokens) == engine.max_tokens == 256
    assert sum(result.truncated) == (reference["full"] > 256).sum() >= 5
    assert reference["torch_facts"].tolist() == [256, 384, sum(result.truncated), 0]


def test_what_lies_behind_the_limit_is_not_read(engine: Engine) -> None:
    long = "word " * 254
    a, b, c = answers(
        engine, [EmbedRequest((long,)), EmbedRequest((long + "tail",)), EmbedRequest(("tail " + long,))]
    )
    assert np.array_equal(a, b)
    assert not np.allclose(a, c, atol=1e-3)


def test_vectors_have_length_one(engine: Engine) -> None:
    for got in answers(engine, [EmbedRequest(TEXTS), EmbedRequest(TEXTS, dimensions=7)]):
        assert np.allclose(np.linalg.norm(got, axis=1), 1.0, atol=1e-5)


def test_a_batch_gives_what_each_text_gives_alone(engine: Engine) -> None:
    texts = TEXTS[::9]
    (together,) = answers(engine, [EmbedRequest(texts)])
    alone = np.concatenate(answers(engine, [EmbedRequest((text,)) for text in texts]))
    one_by_one = np.concatenate([answers(engine, [EmbedRequest((text,))])[0] for text in texts])
    assert np.array_equal(together, alone)
    assert np.abs(together - one_by_one).max() < 1e-5


def test_nearest_sentences_read_sensibly(engine: Engine) -> None:
    demo, query = answers(
        engine, [EmbedRequest(TEXTS[:200]), EmbedRequest(("somebody used my card without asking",))]
    )
    nearest = [TEXTS[i] for i in np.argsort(demo @ query[0])[::-1][:3]]
    assert "The customer reported three card payments that she did not make." in nearest


@pytest.mark.parametrize("name", ["cls", "prompt", "half", "brain", "roberta"])
def test_other_models_of_the_family(
    name: str, small_model: Callable[[str], dict[str, bytes]], reference: Arrays
) -> None:
    engine = load_engine("openvino", small_model(name), precision="f32", threads=1)
    assert engine.max_tokens == 40
    (got,) = answers(engine, [EmbedRequest(TEXTS[::3], normalize=False)])
    assert cosines(got, reference[f"model_{name}"]).min() >= F32
    assert np.abs(got - reference[f"model_{name}"]).max() < 1e-3
