"""Small random-weight Llamas with tokenizers of their own, made on the fly: no download, no foreign file."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role') }}{% endif %}"
    "<|{{ message['role'] }}|>{{ message['content'] | trim }}</s>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXTS = [
    "Once upon a time there was a small model that knew only a few words.",
    "It was asked many questions, and to each it gave an answer of its own making.",
    "Grüße aus Köln, 世界 und überall; naïve café, coöperate! 🙂",
    "Numbers like 0 1 2 3 4 5 6 7 8 9 and signs like , . ; : ! ? ( ) belong to text as well.",
]


def byte_level_tokenizer() -> Any:
    """Return a byte-level BPE tokenizer of some 400 tokens, with the special tokens of the template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<unk>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


@lru_cache(maxsize=4)
def llama_files(
    context: int = 256, hidden: int = 32, layers: int = 2, dtype: str = "float32"
) -> dict[str, bytes]:
    """Return the files of a random Llama as a model package would hold them; made without torch."""
    from safetensors.numpy import save

    heads, shared = max(4, hidden // 64), max(2, hidden // 128)
    files = tiny_files(context)
    config = {
        **json.loads(files["config.json"]),
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": shared,
        "head_dim": hidden // heads,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "tie_word_embeddings": False,
        "torch_dtype": dtype,
    }
    rows = {"q_proj": hidden, "k_proj": hidden * shared // heads, "v_proj": hidden * shared // heads}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "lm_head.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    for layer in range(layers):
        name = f"model.layers.{layer}."
        shapes |= {f"{name}self_attn.{part}.weight": (size, hidden) for part, size in rows.items()}
        shapes |= {
            f"{name}self_attn.o_proj.weight": (hidden, hidden),
            f"{name}mlp.gate_proj.weight": (2 * hidden, hidden),
            f"{name}mlp.up_proj.weight": (2 * hidden, hidden),
            f"{name}mlp.down_proj.weight": (hidden, 2 * hidden),
            f"{name}input_layernorm.weight": (hidden,),
            f"{name}post_attention_layernorm.weight": (hidden,),
        }
    random = np.random.default_rng(7)
    scale = 0.6 if hidden <= 64 else 0.1
    weights = {
        name: (np.ones(shape) if len(shape) == 1 else random.normal(0, scale, shape)).astype(dtype)
        for name, shape in shapes.items()
    }
    files["config.json"] = json.dumps(config).encode()
    files["model.safetensors"] = save(weights, metadata={"format": "pt"})
    return files


@lru_cache(maxsize=4)
def _small_files(context: int) -> dict[str, bytes]:
    tokenizer = byte_level_tokenizer()
    tokens = {
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True},
        "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    config = {"max_position_embeddings": context, "eos_token_id": 2, "vocab_size": tokenizer.get_vocab_size()}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(tokens).encode(),
    }


def tiny_files(context: int = 512) -> dict[str, bytes]:
    """Return a model's small files without weights, for engines whose library is a stand-in."""
    return dict(_small_files(context))
