"""Credit by flow in a training loop of one's own: GRPO on nano and Countdown in plain PyTorch.

    python examples/own_loop.py --steps 3

`ft.credit_weights` takes token ids and advantages, however they came about, and gives each token its own advantage. The
rest is any loop: sample a group, reward it, centre the rewards, and step on the log-probabilities, each times its
token's advantage.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch

import flowtracer as ft
from flowtracer.model.load import load_model


def train(model_name: str, steps: int, group: int = 8, max_new_tokens: int = 200) -> Iterator[dict[str, float]]:
    model, tokenizer = load_model(model_name)
    task = ft.TASKS["countdown"](brief=True, max_numbers=3, max_value=20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    for problem in task.problems("train", steps):
        prompt = tokenizer.apply_chat_template(list(problem.prompt), add_generation_prompt=True)["input_ids"]
        asked = torch.tensor([prompt] * group, device=model.device)
        sampled = model.generate(asked, do_sample=True, max_new_tokens=max_new_tokens)[:, len(prompt) :]
        responses = [until_end(row, tokenizer.eos_token_id) for row in sampled.tolist()]
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        rewards = torch.tensor([float(task.verify(problem, text).correct) for text in texts], device=model.device)
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)

        credit = ft.credit_weights(model, tokenizer, [prompt] * group, responses, advantages, "flow")

        width = credit.mask_BR.shape[1]
        response = sampled[:, :width]  # padding stands behind, where no earlier token sees it
        logits = model(torch.cat([asked, response], 1)).logits[:, -width - 1 : -1]
        log_probs = logits.log_softmax(-1).gather(-1, response[..., None]).squeeze(-1)
        loss = -(credit.advantages_BR * log_probs).sum() / credit.mask_BR.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean_factor = credit.weights_BR[credit.mask_BR].mean()
        yield {"reward": rewards.mean().item(), "loss": loss.item(), "mean_factor": mean_factor.item(), **credit.misses}


def until_end(ids: list[int], end: int) -> list[int]:
    """A response with the token that ends it, and nothing behind."""
    return ids[: ids.index(end) + 1] if end in ids else ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    for line in train(options.model, options.steps):
        print(line)


if __name__ == "__main__":
    main()
