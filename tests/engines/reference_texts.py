"""What transformers itself makes of the same model, the same conversations and the same logits."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ephemeralml.wire.errors import EngineError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.wire.job import Turn
from ephemeralml.workers.engines.chat import ChatTemplate

EACH = "{% for m in messages %}"
TEMPLATES = [
    EACH + "[{{ m.role }}] {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
    "{{ bos_token }}{%- for message in messages -%}\n    {{- message['role'] | upper + ': ' "
    "+ message['content'] | trim }}\n{%- endfor %}\n",
    EACH + "{% if loop.first %}{% continue %}{% endif %}{{ m | tojson }}"
    "{% if loop.index > 2 %}{% break %}{% endif %}{% endfor %}",
    "{% set ns = namespace(n=0) %}" + EACH + "{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ eos_token }}",
    "{% macro turn(m) %}<{{ m.role }}>{{ m.content }}{% endmacro %}" + EACH + "{{ turn(m) }}{% endfor %}",
]
ODD = Turn("user", 'Grüße <b>&</b> "世界"\n')
CONVERSATIONS = [
    [Turn("user", "Hi")],
    [Turn("system", " Be brief. "), ODD, Turn("assistant", "ok"), Turn("user", "")],
]


def greedy_of_library(library: Any, torch: Any, files: Mapping[str, bytes], prompt: str, count: int) -> str:
    """Return the text that the library's own generate() makes."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        model = library.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        tokenizer = library.PreTrainedTokenizerFast(tokenizer_file=str(Path(folder) / "tokenizer.json"))
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=count, do_sample=False, pad_token_id=0
        )
    return str(tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True))


def check_chat_templates(library: Any, files: Mapping[str, bytes]) -> None:
    """Compare rendered conversations with the library's."""
    from tokenizers import Tokenizer

    special = {"bos_token": "<s>", "eos_token": "</s>"}
    theirs = library.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(files["tokenizer.json"].decode()), **special
    )
    own = json.loads(files["tokenizer_config.json"])["chat_template"]
    for source in [*TEMPLATES, own]:
        for turns in CONVERSATIONS:
            messages = [{"role": turn.role, "content": turn.content} for turn in turns]
            wanted = theirs.apply_chat_template(
                messages, chat_template=source, tokenize=False, add_generation_prompt=True
            )
            assert ChatTemplate(source, special).render(turns) == wanted
    try:
        ChatTemplate(own, special).render([Turn("robot", "hi")])
    except EngineError as error:
        assert error.code == "ENGINE_BAD_INPUT"  # noqa: PT017
    else:
        raise AssertionError("the template's own refusal was lost")


def check_filters(library: Any, torch: Any, kept: Any) -> None:
    """Compare which tokens the filters keep, and their probabilities, with the library's processors."""
    random = np.random.default_rng(1)
    for top_k, top_p, min_p in ((0, 1.0, 0.0), (5, 1.0, 0.0), (0, 0.7, 0.0), (0, 1.0, 0.1), (20, 0.9, 0.05)):
        logits = random.normal(0, 3, 200)
        scores = torch.tensor(logits)[None]
        if top_k:
            scores = library.TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1.0:
            scores = library.TopPLogitsWarper(top_p)(None, scores)
        if min_p:
            scores = library.MinPLogitsWarper(min_p)(None, scores)
        theirs = torch.softmax(scores, -1)[0].numpy()
        order, probabilities = kept(logits, GenerateParameters(top_k=top_k, top_p=top_p, min_p=min_p))
        assert set(order.tolist()) == set(np.flatnonzero(theirs).tolist())
        assert np.allclose(theirs[order], probabilities)
