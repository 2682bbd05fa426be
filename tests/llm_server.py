"""A small language model from a GGUF file behind the tests' chat server: `python tests/llm_server.py FILE.gguf` serves it.

transformers reads the file (package `gguf`). A base model follows no instructions, so it goes on with examples, one line per item,
and the answer's JSON is written around its lines, as a server that is bound to a schema does.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chat_server import Answer, Server, as_items, chat_server, items_of

EXAMPLES = (
    ("1 dog, 1 bench | in falling snow", "A brown dog sits beside a wooden bench in falling snow, seen from the side"),
    ("3 bicycle, road", "Three red bicycles lean against a wall along a narrow road in the morning sun"),
    ("1 cat, 2 bottle | at night", "A black cat looks at two green bottles on a kitchen table at night, a close shot"),
)
MOST_TOKENS = 40
"""Of one text."""


def language_model(file: Path) -> Callable[[Server, dict[str, Any]], Answer]:
    """The behaviour of a server with the model in a GGUF file."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name, dtype=torch.float32).eval()
    newline = tokenizer.encode("\n", add_special_tokens=False)[-1]
    one = threading.Lock()

    def answer(server: Server, request: dict[str, Any]) -> Answer:
        shown = (*EXAMPLES, (items_of({"messages": request["messages"][:2]})[0], _example(request)))
        begin = "".join(f"Things: {item}\nCaption: {text}\n" for item, text in shown)
        asked = [f"{begin}Things: {item}\nCaption:" for item in items_of(request)]
        tokens = tokenizer(asked, return_tensors="pt", padding=True)
        with one, torch.inference_mode():
            torch.manual_seed(request["seed"] % 2**31)
            temperature = request.get("temperature") or 1.0
            found = model.generate(
                **tokens, max_new_tokens=MOST_TOKENS, do_sample=True, temperature=temperature, top_p=0.95, top_k=0,
                eos_token_id=newline, pad_token_id=tokenizer.pad_token_id or 0,
            )  # fmt: skip
        written = found[:, tokens["input_ids"].shape[1] :]
        texts = [t.strip().partition("\n")[0] for t in tokenizer.batch_decode(written, skip_special_tokens=True)]
        usage = {"prompt_tokens": tokens["input_ids"].numel(), "completion_tokens": written.numel()}
        return Answer(as_items(texts), usage=usage)

    return answer


def _example(request: dict[str, Any]) -> str:
    """The text of the request's own example."""
    return request["messages"][2]["content"].partition('"text": "')[2].partition('"}')[0]


if __name__ == "__main__":
    with chat_server(language_model(Path(sys.argv[1]))) as running:
        print(running.url, flush=True)
        while True:
            time.sleep(1)
