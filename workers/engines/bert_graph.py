"""A BERT-family encoder as an OpenVINO graph, built straight from the original weights.

Operations: https://docs.openvino.ai (opset13). Layer order and names follow the
checkpoints of ``transformers``' ``BertModel`` and ``RobertaModel``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...wire.errors import ModelError
from .openvino_runtime import op, ov
from .sentence_model import SentenceModel

_MASKED = -1e9  # added to the scores of padding; far below any score, and finite in bfloat16 too
_FAMILIES = ("bert", "roberta", "xlm-roberta")
_PREFIXES = ("", "bert.", "roberta.")
Weights = dict[str, NDArray[Any]]


def build(model: SentenceModel, weights: Weights) -> ov.Model:
    """Return a graph ``(ids int32 [n, t], mask float32 [n, t]) -> float32 [n, hidden]``, pooled only.

    float32 arrays in writable memory are shared with the graph; they must not change while it lives.

    :raises ModelError: ``MODEL_UNSUPPORTED`` or ``MODEL_FILE_MALFORMED`` (a tensor missing or misshapen).
    """
    return _Builder(model, weights).build()


class _Builder:
    def __init__(self, model: SentenceModel, weights: Weights) -> None:
        config = model.config
        if config.get("model_type") not in _FAMILIES:
            raise ModelError("MODEL_UNSUPPORTED", f"model_type must be one of {', '.join(_FAMILIES)}")
        if config.get("position_embedding_type", "absolute") != "absolute" or config.get("is_decoder"):
            raise ModelError("MODEL_UNSUPPORTED", "only encoders with absolute positions are supported")
        try:
            self.hidden, self.heads = int(config["hidden_size"]), int(config["num_attention_heads"])
            self.layers, self.inner = int(config["num_hidden_layers"]), int(config["intermediate_size"])
            self.epsilon = float(config["layer_norm_eps"])
        except (KeyError, TypeError, ValueError):
            raise ModelError("MODEL_FILE_MALFORMED", "config.json lacks the model's sizes") from None
        if self.heads < 1 or self.hidden % self.heads:
            raise ModelError("MODEL_FILE_MALFORMED", "hidden_size is not a multiple of the heads")
        self.activation = _activation(config.get("hidden_act", "gelu"))
        self.offset = 0 if config["model_type"] == "bert" else int(config.get("pad_token_id") or 0) + 1
        self.pooling = model.pooling
        self.max_tokens = model.max_tokens
        self.weights = weights
        word = "embeddings.word_embeddings.weight"
        self.prefix = next((p for p in _PREFIXES if p + word in weights), "")

    def build(self) -> ov.Model:
        ids = op.parameter([-1, -1], np.int32, name="ids")
        mask = op.parameter([-1, -1], np.float32, name="mask")
        inverse = op.subtract(_scalar(1.0), mask)
        scores = op.unsqueeze(op.multiply(inverse, _scalar(_MASKED)), _ints([1, 2]))
        x = self.embed(ids)
        for index in range(self.layers):
            x = self.layer(f"encoder.layer.{index}.", x, scores)
        return ov.Model([self.pool(x, mask)], [ids, mask], "sentence-encoder")

    def tensor(self, name: str, *shape: int | None) -> NDArray[Any]:
        array = self.weights.get(self.prefix + name)
        if array is None or array.ndim != len(shape):
            raise ModelError("MODEL_FILE_MALFORMED", f"tensor {name} is missing or misshapen")
        if any(want not in (None, size) for want, size in zip(shape, array.shape, strict=True)):
            raise ModelError("MODEL_FILE_MALFORMED", f"tensor {name} does not fit config.json")
        return array

    def embed(self, ids: ov.Node) -> ov.Node:
        words = self.tensor("embeddings.word_embeddings.weight", None, self.hidden)
        positions = self.tensor("embeddings.position_embeddings.weight", None, self.hidden)
        kinds = self.tensor("embeddings.token_type_embeddings.weight", None, self.hidden)
        table = positions[self.offset : self.offset + self.max_tokens] + kinds[0]
        if len(table) < self.max_tokens:
            raise ModelError("MODEL_FILE_MALFORMED", "fewer positions than the length limit")
        length = op.gather(op.shape_of(ids, "i32"), _scalar(1, np.int32), _scalar(0, np.int32))
        steps = op.range(_scalar(0, np.int32), length, _scalar(1, np.int32), "i32")
        axis = _scalar(0, np.int32)
        x = op.add(op.gather(constant(words), ids, axis), op.gather(constant(table), steps, axis))
        return self.norm("embeddings.LayerNorm", x)

    def layer(self, name: str, x: ov.Node, scores: ov.Node) -> ov.Node:
        query, key, value = (
            self.split(self.linear(f"{name}attention.self.{part}", x, self.hidden, self.hidden))
            for part in ("query", "key", "value")
        )
        attended = op.scaled_dot_product_attention(query, key, value, scores)
        joined = op.reshape(op.transpose(attended, _ints([0, 2, 1, 3])), _ints([0, 0, self.hidden]), True)
        out = self.linear(f"{name}attention.output.dense", joined, self.hidden, self.hidden)
        x = self.norm(f"{name}attention.output.LayerNorm", op.add(out, x))
        inner = self.activation(self.linear(f"{name}intermediate.dense", x, self.hidden, self.inner))
        out = self.linear(f"{name}output.dense", inner, self.inner, self.hidden)
        return self.norm(f"{name}output.LayerNorm", op.add(out, x))

    def linear(self, name: str, x: ov.Node, inputs: int, outputs: int) -> ov.Node:
        weight = constant(self.tensor(f"{name}.weight", outputs, inputs))
        bias = constant(self.tensor(f"{name}.bias", outputs))
        return op.add(op.matmul(x, weight, False, True), bias)

    def split(self, x: ov.Node) -> ov.Node:
        shape = _ints([0, 0, self.heads, self.hidden // self.heads])
        return op.transpose(op.reshape(x, shape, True), _ints([0, 2, 1, 3]))

    def norm(self, name: str, x: ov.Node) -> ov.Node:
        scaled = op.mvn(x, _ints([-1]), True, self.epsilon, "inside_sqrt")
        weight = constant(self.tensor(f"{name}.weight", self.hidden))
        return op.add(op.multiply(scaled, weight), constant(self.tensor(f"{name}.bias", self.hidden)))

    def pool(self, x: ov.Node, mask: ov.Node) -> ov.Node:
        if self.pooling == "cls":
            return op.gather(x, _scalar(0, np.int32), _scalar(1, np.int32))
        weights = op.unsqueeze(mask, _ints([2]))
        total = op.reduce_sum(op.multiply(x, weights), _ints([1]))
        return op.divide(total, op.reduce_sum(weights, _ints([1])))


def constant(array: NDArray[Any]) -> ov.Node:
    """Return the array as a graph constant, sharing its memory where that is writable and aligned."""
    sharable = array.flags.writeable and array.flags.c_contiguous and array.flags.aligned
    return op.constant(array if sharable else array.copy(), shared_memory=True)


def _activation(name: object) -> Any:
    if name == "gelu":
        return lambda x: op.gelu(x, "ERF")
    if name in ("gelu_new", "gelu_pytorch_tanh"):
        return lambda x: op.gelu(x, "TANH")
    if name == "relu":
        return op.relu
    raise ModelError("MODEL_UNSUPPORTED", "hidden_act must be gelu, gelu_new, gelu_pytorch_tanh or relu")


def _scalar(value: float, dtype: Any = np.float32) -> ov.Node:
    return op.constant(np.array(value, dtype=dtype))


def _ints(values: list[int]) -> ov.Node:
    return op.constant(np.array(values, dtype=np.int32))
