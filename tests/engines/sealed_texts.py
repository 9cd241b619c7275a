"""Run as a script: the reference engine for text, in a process that the kernel kills if it talks to anybody.

Prints what did not hold: findings of the conformance suite, and differences to transformers itself.
"""

from __future__ import annotations

import json

from tests.engines.sealed_process import forbid_sending


def main() -> None:
    forbid_sending()
    import torch
    import transformers

    from ephemeralml.wire.generation import GenerateParameters
    from ephemeralml.workers.engines import EngineSettings, load_generate_engine
    from ephemeralml.workers.engines.conformance import check_engine
    from ephemeralml.workers.engines.generate import GenerateRequest
    from ephemeralml.workers.engines.generate_sampling import kept
    from tests.engines.generate_models import llama_files
    from tests.engines.reference_texts import check_chat_templates, check_filters, greedy_of_library

    files = llama_files()
    prompt, greedy = "Once upon a time", GenerateParameters(max_tokens=20, temperature=0.0)
    engine = load_generate_engine("transformers", files, EngineSettings(threads=1))
    mine = engine.submit(GenerateRequest(prompt, greedy)).result(100).text
    theirs = greedy_of_library(transformers, torch, files, prompt, 20)
    findings = [f"{found.check}: {found.detail}" for found in check_engine(engine) if not found.passed]
    check_chat_templates(transformers, files)
    check_filters(transformers, torch, kept)
    print(json.dumps({"findings": findings, "like the library": mine == theirs and bool(mine)}))


if __name__ == "__main__":
    main()
