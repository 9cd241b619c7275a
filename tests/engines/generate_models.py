"""Small random-weight Llamas with tokenizers of their own, made on the fly: no download, no foreign file."""

from __future__ import annotations

import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

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
    """Return the files of a random Llama as a model package would hold them."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        os.environ[name] = "1"
    import torch
    import transformers

    tokenizer = byte_level_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(4, hidden // 64),
        num_key_value_heads=max(2, hidden // 128),
        max_position_embeddings=context,
        initializer_range=0.6 if hidden <= 64 else 0.1,
        bos_token_id=1,
        eos_token_id=2,
        tie_word_embeddings=False,
    )
    torch.manual_seed(7)
    model = transformers.LlamaForCausalLM(config).to(getattr(torch, dtype))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, safe_serialization=True)
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    files["tokenizer.json"] = tokenizer.to_str().encode()
    files["tokenizer_config.json"] = json.dumps(
        {
            "bos_token": "<s>",
            "eos_token": {"content": "</s>", "special": True},
            "chat_template": CHAT_TEMPLATE,
            "tokenizer_class": "PreTrainedTokenizerFast",
        }
    ).encode()
    return files


@lru_cache(maxsize=1)
def tiny_files() -> dict[str, bytes]:
    """Return a model's small files without weights, for engines whose library is a stand-in."""
    tokenizer = byte_level_tokenizer()
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHAT_TEMPLATE}
    config = {"max_position_embeddings": 512, "eos_token_id": 2, "vocab_size": tokenizer.get_vocab_size()}
    return {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(tokens).encode(),
    }
