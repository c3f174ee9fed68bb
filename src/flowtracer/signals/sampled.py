"""Sequences that a trainer has just sampled, and a few of them at a time as a model takes them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flowtracer.attention.layer import LayerAttention
from flowtracer.model.capture import AttentionReader
from flowtracer.shapes import Int
from flowtracer.signals.images import Images

Prompt = str | Sequence[Mapping[str, str]]
"""Text, used as it is, or chat messages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Few:
    """A few sequences of a batch, without the columns that nobody reads."""

    numbers: Int[Tensor, " B"]
    """Their numbers in the batch."""
    ids_BT: Int[Tensor, "B T"]
    mask_BT: Int[Tensor, "B T"]
    """1 on tokens, 0 on padding."""
    first: int
    """Column of the first response token."""
    cut: int
    """Columns that were cut off in front."""
    content_BT: Int[Tensor, "B T"]
    """Equal where tokens are, and the images that their sequences show: the tokens' ids where none is shown."""
    images: Callable[[], dict[str, Tensor]] | None = None
    """What the forward takes of images; None where none is shown."""

    def inputs(self) -> dict[str, Tensor]:
        """What a model's forward takes. Without padding no mask is needed, and the backend's fastest path is open.

        With images it is what the trainer's own pass gets: a model may work positions out of its mask.
        """
        if self.images is not None:
            return {"input_ids": self.ids_BT, "attention_mask": self.mask_BT, **self.images()}
        if bool(self.mask_BT.all()):
            return {"input_ids": self.ids_BT}
        positions_BT = (self.mask_BT.cumsum(-1) - 1).clamp_min(0)
        return {"input_ids": self.ids_BT, "attention_mask": self.mask_BT, "position_ids": positions_BT}

    def attend(self, reader: AttentionReader, *, stop_early: bool) -> list[LayerAttention]:
        """What the reader's layers attend with, over these sequences."""
        inputs = self.inputs()
        padding = inputs.pop("attention_mask", None), inputs.pop("position_ids", None)
        return reader.read(inputs.pop("input_ids"), *padding, images=inputs, stop_early=stop_early)

    def part(self, layers: Sequence[LayerAttention], first: int = 0) -> list[LayerAttention]:
        """These sequences out of layers over the whole batch, or over the piece of it that begins at number `first`."""
        # Where all are there and in order, nothing needs to be copied.
        whole = len(self.numbers) == len(layers[0].query_BHTD)
        columns = self.cut, self.cut + self.ids_BT.shape[1]
        return [
            layer.part(slice(None) if whole else (self.numbers - first).to(layer.query_BHTD.device), *columns)
            for layer in layers  # which may lie on several GPUs
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """A batch of prompts and responses as token ids."""

    prompt_ids_BP: Int[Tensor, "B P"]
    """Padded on the left."""
    prompt_mask_BP: Int[Tensor, "B P"]
    response_ids_BR: Int[Tensor, "B R"]
    """Padded on the right."""
    response_mask_BR: Int[Tensor, "B R"]
    prompts: Sequence[Prompt] | None = None
    """The prompts before they became tokens, where a strategy asks for the gold answer."""
    golds: Sequence[str | None] | None = None
    """The right answer of each, where it is known."""
    images: Images | None = None
    """What the prompts show; their tokens stand among the prompts'."""

    @classmethod
    def padded(
        cls,
        pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
        device: torch.device | str = "cpu",
        *,
        pad: int = 0,
        prompts: Sequence[Prompt] | None = None,
        golds: Sequence[str | None] | None = None,
    ) -> Sampled:
        """Pairs of prompt and response ids as one batch: prompts padded on the left, responses on the right."""
        longest_prompt, longest_response = (max(len(pair[part]) for pair in pairs) for part in (0, 1))
        prompt_BP, response_BR = (torch.full((len(pairs), n), pad) for n in (longest_prompt, longest_response))
        prompt_mask_BP, response_mask_BR = torch.zeros_like(prompt_BP), torch.zeros_like(response_BR)
        for row, (prompt, response) in enumerate(pairs):
            left = longest_prompt - len(prompt)
            prompt_BP[row, left:], prompt_mask_BP[row, left:] = torch.tensor(prompt, dtype=torch.long), 1
            response_BR[row, : len(response)] = torch.tensor(response, dtype=torch.long)
            response_mask_BR[row, : len(response)] = 1
        return cls(
            prompt_ids_BP=prompt_BP.to(device),
            prompt_mask_BP=prompt_mask_BP.to(device),
            response_ids_BR=response_BR.to(device),
            response_mask_BR=response_mask_BR.to(device),
            prompts=prompts,
            golds=golds,
        )

    def __len__(self) -> int:
        return len(self.response_ids_BR)

    @property
    def device(self) -> torch.device:
        """Where the ids lie."""
        return self.response_ids_BR.device

    @property
    def width(self) -> int:
        """Tokens of a sequence, padding included."""
        return self.prompt_ids_BP.shape[1] + self.response_ids_BR.shape[1]

    def lengths(self) -> list[int]:
        """Tokens of each response."""
        return [int(n) for n in self.response_mask_BR.sum(-1).tolist()]

    def few(self, numbers: Int[Tensor, " B"], stop: int | None = None) -> Few:
        """Some of the sequences, up to column `stop` of the response."""
        ids_BT = torch.cat([self.prompt_ids_BP[numbers], self.response_ids_BR[numbers, :stop]], 1)
        mask_BT = torch.cat([self.prompt_mask_BP[numbers], self.response_mask_BR[numbers, :stop]], 1)
        # Columns that hold only padding cost attention and say nothing.
        cut = int(mask_BT.any(0).nonzero()[0])
        first = self.prompt_ids_BP.shape[1] - cut
        ids_BT, content_BT = ids_BT[:, cut:], ids_BT[:, cut:]
        images = None
        if self.images is not None:
            images = functools.partial(self.images.inputs, numbers, slice(cut, cut + ids_BT.shape[1]))
            # Beyond every id of a vocabulary, so that sequences with other images share no token.
            content_BT = ids_BT + (self.images.alike_B.to(ids_BT)[numbers] << 32)[:, None]
        return Few(
            numbers=numbers,
            ids_BT=ids_BT,
            mask_BT=mask_BT[:, cut:],
            first=first,
            cut=cut,
            content_BT=content_BT,
            images=images,
        )

    def slices(self, size: int, chosen: Int[Tensor, " B"] | None = None) -> Iterator[Int[Tensor, " N"]]:
        """Numbers of the sequences, or of the chosen ones, `size` at a time."""
        numbers = torch.arange(len(self), device=self.device) if chosen is None else chosen
        yield from numbers.split(size) if len(numbers) else ()
