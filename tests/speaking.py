"""A model that says what it would not by itself."""

from __future__ import annotations

from typing import Any


def saying(trainer: Any, responses: list[str]) -> None:
    """Make the model say what it would not by itself, token by token, as it generates."""
    model, tokenizer = trainer.model, getattr(trainer.processing_class, "tokenizer", trainer.processing_class)
    forced = [[*tokenizer(text)["input_ids"], tokenizer.eos_token_id] for text in responses]

    def allowed(row: int, ids: Any) -> list[int]:
        place = len(ids) - width[0]
        return [forced[row % 4][place] if place < len(forced[row % 4]) else tokenizer.pad_token_id]

    def generate(input_ids: Any, **options: Any) -> Any:
        width[:] = [input_ids.shape[1]]
        return spoken(input_ids=input_ids, prefix_allowed_tokens_fn=allowed, **options)

    width, spoken = [0], model.generate
    model.generate = generate
    model.train()
