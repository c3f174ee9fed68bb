"""GRPO with credit per token, as one override of TRL's trainer.

TRL's loss takes advantages of shape (B, T) beside (B,). So after TRL has generated, scored and normalised, a strategy
gives each token its own advantage, and everything else is TRL's: losses, clipping, KL, logging, checkpoints,
launchers. With the response's own advantage on every token the run is GRPO to the bit. A maintainer confirmed this
route (TRL #4525), but the methods are private, so a probe at the first step refuses a TRL whose loss no longer treats
them that way. Three more methods are only listened to, and what they say of one generation is one object, `Overheard`:

- the one that computes the rewards, which TRL does not hand on;
- the one that computes log-probabilities: where TRL runs the policy over what was just sampled (several optimiser steps
  a generation, vLLM's correction), attention, log-probabilities and entropies are read off that pass;
- the one that generates: where no such pass follows, attention is what the model paid while it generated.

Only what neither gives takes a forward of credit's own. The metric `credit/own_forward` is the share of responses that
it ran over, and `credit/lost/REASON` says why generation could not be read.
"""

from __future__ import annotations

import functools
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast, no_type_check

import torch
from torch import Tensor

from flowtracer.credit import Credit, Readings, Signals, make_credit, reads_of
from flowtracer.credit.signals import GroupSignals, LogitSignals
from flowtracer.errors import InputError, MissingDependencyError
from flowtracer.model.forward import image_token_of
from flowtracer.rl.advantages import response_seeds, token_advantages
from flowtracer.rl.answered import miss_shares, warn_unanswered
from flowtracer.rl.images import columns_of_images, refuse_beside_images, refuse_in_responses, show_images
from flowtracer.rl.loss_probe import refuse_blind_loss, refuse_sequence_ratio, refuse_unsloth
from flowtracer.rl.metrics import credit_metrics
from flowtracer.rl.trackers import log_traces
from flowtracer.rl.training_traces import TraceKeeper, TrainedBatch
from flowtracer.signals.generated import GENERATION_BYTES, LOST, Generated
from flowtracer.signals.images import Images
from flowtracer.signals.reader import Ride, SignalReader, refuse_blind, refuse_sharded
from flowtracer.signals.sampled import Sampled
from flowtracer.signals.visual import black_of
from flowtracer.text.answer import AnswerPattern, check_pattern
from flowtracer.tracing.tracer import Tracer

try:
    from trl import GRPOConfig, GRPOTrainer
except ImportError as error:
    raise MissingDependencyError(f'expected TRL, got {error}: pip install "flowtracer[train]"') from error


@no_type_check  # TRL's own annotations are looser than its values
@dataclass
class FlowGRPOConfig(GRPOConfig):
    """TRL's GRPO options, and those of credit."""

    # On a command line they come as JSON, as TRL's own mappings do.
    _VALID_DICT_FIELDS = [*GRPOConfig._VALID_DICT_FIELDS, "credit_options"]  # noqa: RUF012

    credit: str = field(default="flow", metadata={"help": "Name of a credit strategy in flowtracer.CREDITS."})
    credit_options: dict[str, Any] | str | None = field(
        default=None, metadata={"help": "Options of the strategy, such as {'ratio': 0.4, 'gamma': 1.5}."}
    )
    credit_normalise: bool = field(
        default=False, metadata={"help": "Keep the mean size of each response's advantages: a mean factor of 1."}
    )
    credit_generation_bytes: int = field(
        default=GENERATION_BYTES,
        metadata={
            "help": "Queries and keys that may be kept of one generation, so that credit needs no forward of its own; "
            "beyond it, it runs one. 0 keeps nothing."
        },
    )
    answer_pattern: str | None = field(
        default=None,
        metadata={
            "help": "Regular expression whose first group is the answer, such as 'Result: (.+)', where responses state "
            "it in none of the usual ways."
        },
    )
    trace_steps: int = field(
        default=0, metadata={"help": "Keep traces in output_dir/traces every so many optimiser steps; 0 for none."}
    )
    trace_prompts: int = field(default=4, metadata={"help": "How many of the data set's first prompts are traced."})


# Checkers have passed over it by now; the parsers of TRL's command line and YAML read its annotations.
delattr(FlowGRPOConfig, "__no_type_check__")


@dataclass(kw_only=True)
class Overheard:
    """What TRL's own calls have given of one generation that is trained on; made anew for each."""

    hears_generation: bool
    """Not where a pass over whole sequences follows, as it did last time: that gives more."""
    rewards_NF: Tensor | None = None
    """Of all processes' responses, by reward function."""
    generated: Generated | None = None
    ride: Ride | None = None


class FlowGRPOTrainer(GRPOTrainer):
    """TRL's `GRPOTrainer`, whose reward lands on the tokens that carried the answer.

    Takes what `GRPOTrainer` takes, with `FlowGRPOConfig` for its arguments. A strategy of your own, any function of
    `Signals`, goes in as `credit`; it then replaces the one that the arguments name. Strategies that need the gold
    answer read it from the data set's column `gold`. How responses state their answer may be a function,
    `answer_pattern`; it replaces that of the arguments.

    Raises:
        InputError: Options that cannot be combined with per-token advantages, or with images among the prompts.
        CaptureError: The credit needs flow, and the model's attention cannot be read.
    """

    _tag_names = ["trl", "grpo", "flowtracer"]  # noqa: RUF012 - as TRL declares it

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOConfig | None = None,
        train_dataset: Any = None,
        *others: Any,
        credit: Credit | None = None,
        answer_pattern: AnswerPattern | None = None,
        **named: Any,
    ) -> None:
        if args is None:  # as TRL does, with credit's own defaults
            name = model if isinstance(model, str) else model.config._name_or_path
            args = FlowGRPOConfig(f"{name.split('/')[-1]}-GRPO")
        refuse_unsloth(type(self))
        _refuse_options(args)
        options = cast("dict[str, Any] | None", args.credit_options)  # TRL has parsed what came as a string
        strategy = credit or make_credit(args.credit, options)
        reads_of(strategy)
        self._answer_pattern = answer_pattern or args.answer_pattern
        check_pattern(self._answer_pattern)
        if where := columns_of_images(train_dataset):
            refuse_beside_images(strategy, args.trace_steps, where)
        super().__init__(model, reward_funcs, args, train_dataset, *others, **named)
        self.credit = strategy
        refuse_blind(strategy, self.accelerator.unwrap_model(self.model))
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            refuse_sharded(self.credit)
        self._signal_reader: SignalReader | None = None
        self._overheard: Overheard | None = None  # while a generation is trained on
        self._rides = False
        self._keeper: TraceKeeper | None = None
        self._probed = False
        self._answered = False
        if self.args.trace_steps:
            self._refuse_untraceable()

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Tensor:
        rewards_NF = super()._calculate_rewards(*args, **kwargs)
        if self._overheard is not None:
            self._overheard.rewards_NF = rewards_NF
        return rewards_NF

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training:  # nothing is learned
            return super()._generate_and_score_completions(inputs)
        if show_images(inputs):
            refuse_beside_images(self.credit, self.args.trace_steps)
        heard = self._overheard = Overheard(hears_generation=not self._rides)
        try:
            out = super()._generate_and_score_completions(inputs)
        finally:
            self._overheard = None
        if "pixel_values" in out:  # a tool may have shown one
            refuse_in_responses(out, image_token_of(self.accelerator.unwrap_model(self.model)))
        self._rides = heard.ride is not None
        if not self._probed:
            refuse_blind_loss(self, out)
            self._probed = True
        return self._credited(inputs, out, heard)

    def _credited(self, inputs: list[dict[str, Any]], out: dict[str, Any], heard: Overheard) -> dict[str, Any]:
        """TRL's batch, with each token's own advantage."""
        started = time.perf_counter()
        mask_BR = out["completion_mask"].bool()
        if "tool_mask" in out:
            mask_BR &= out["tool_mask"].bool()
        seeds_B = response_seeds(out["completion_ids"], mask_BR, self.args.seed + self.state.global_step)
        readings, misses = self._signals(out, inputs, seeds_B, heard)
        signals = Signals(
            mask_BR=mask_BR,
            advantages_B=out["advantages"],
            seeds_B=seeds_B,
            trained=self.state.global_step / max(self.state.max_steps, 1),
            total=functools.partial(self.accelerator.reduce, reduction="sum"),
            readings=readings,
        )
        advantages_BR = token_advantages(self.credit, signals, normalise=self.args.credit_normalise)
        out["advantages"] = advantages_BR
        self._log_credit(advantages_BR, signals, misses, time.perf_counter() - started)
        if self.args.trace_steps and self.accelerator.is_main_process:
            self._keep_traces(inputs, out, signals.advantages_B, mask_BR, heard)
        return out

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        heard = self._overheard
        if heard is None or not heard.hears_generation:
            return super()._generate_single_turn(*args, **kwargs)
        with self._reader().hearing() as heard.generated:
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        run = functools.partial(
            super()._get_per_token_logps_and_entropies, model, input_ids, attention_mask, logits_to_keep, *args
        )
        heard = self._overheard
        if heard is None or heard.ride is not None or not self._is_policy(model) or not self._reader().rides:
            return run(**kwargs)
        sampled = Sampled(
            prompt_ids_BP=input_ids[:, :-logits_to_keep],
            prompt_mask_BP=attention_mask[:, :-logits_to_keep],
            response_ids_BR=input_ids[:, -logits_to_keep:],
            response_mask_BR=attention_mask[:, -logits_to_keep:],
            images=Images.of(kwargs, len(input_ids)),
        )
        heard.generated = None  # which gives less
        if self._reader().wants_logits:
            kwargs["compute_entropy"] = True
        with self._reader().riding(sampled) as heard.ride:
            log_probs_BR, entropies_BR, aux_loss = run(**kwargs)
        if self._reader().wants_logits:
            off_BR = ~sampled.response_mask_BR.bool()
            entropy_BR, log_prob_BR = (x_BR.float().masked_fill(off_BR, 0) for x_BR in (entropies_BR, log_probs_BR))
            heard.ride.logits = LogitSignals(entropy_BR=entropy_BR, log_prob_BR=log_prob_BR)
        return log_probs_BR, entropies_BR, aux_loss

    def _is_policy(self, model: Any) -> bool:
        """Whether it is the policy that runs; an adapter's reference is the same model, the adapter off or another."""
        if model is not self.model:
            return False
        adapted = getattr(self.accelerator.unwrap_model(self.model), "get_model_status", None)
        return adapted is None or (adapted().enabled is True and "ref" not in adapted().active_adapters)

    def _reader(self) -> SignalReader:
        """Made when first needed: its constructor runs a few tokens."""
        if self._signal_reader is None:
            self._signal_reader = SignalReader(
                self.accelerator.unwrap_model(self.model),
                self._text_tokenizer(),
                self.credit,
                temperature=self.temperature,
                rows_per_forward=self.args.per_device_train_batch_size,
                every_rank_alike=self.is_fsdp_enabled or self.is_deepspeed_enabled,
                # TRL opens a new turn even behind a message of the assistant's.
                template_options={
                    "add_generation_prompt": True,
                    "continue_final_message": False,
                    **(self.args.chat_template_kwargs or {}),
                },
                generation_bytes=self.args.credit_generation_bytes,
                black=black_of(getattr(self.processing_class, "image_processor", None)),
                answer_pattern=self._answer_pattern,
            )
        return self._signal_reader

    def _signals(
        self, out: dict[str, Any], inputs: list[dict[str, Any]], seeds_B: tuple[int, ...], heard: Overheard
    ) -> tuple[Readings, Counter[str]]:
        """What the strategy needs, and nothing else."""
        sampled = Sampled(
            prompt_ids_BP=out["prompt_ids"],
            prompt_mask_BP=out["prompt_mask"],
            response_ids_BR=out["completion_ids"],
            response_mask_BR=out["completion_mask"],
            prompts=[row.get("prompt", "") for row in inputs],  # an environment may write its own
            golds=[_text_or_none(row["gold"]) for row in inputs] if "gold" in inputs[0] else None,
            images=Images.of(out, len(out["completion_ids"])),
        )
        reader = self._reader()
        readings, misses = reader.read(sampled, seeds_B, heard.ride, heard.generated)
        if "group" in reader.needs:
            readings = replace(readings, group=self._group(out["completion_ids"], heard))
        return readings, misses

    def _rewards(self, heard: Overheard) -> Tensor:
        """Of all processes' responses; NaN where no function could score one."""
        if heard.rewards_NF is None:
            raise InputError("expected a TRL that scores by _calculate_rewards; use a supported one (>=1.9, not 1.15)")
        rewards_N = (heard.rewards_NF * self.reward_weights.to(heard.rewards_NF.device)).nansum(1)
        return rewards_N.masked_fill(heard.rewards_NF.isnan().all(1), torch.nan)

    def _group(self, ids_BR: Tensor, heard: Overheard) -> GroupSignals:
        """Group, reward and mean reward of the group of this process's responses, out of those of all processes."""
        rewards_N = self._rewards(heard)
        # What no function could score is left out of the mean, and stands at it.
        means_N = rewards_N.view(-1, self.num_generations).nanmean(1).repeat_interleave(self.num_generations)
        means_N = means_N.nan_to_num()
        rewards_N = torch.where(rewards_N.isnan(), means_N, rewards_N)
        batch = len(ids_BR)
        own = slice(self.accelerator.process_index * batch, (self.accelerator.process_index + 1) * batch)
        groups_N = torch.arange(len(rewards_N), device=rewards_N.device) // self.num_generations
        return GroupSignals(
            token_ids_BR=ids_BR, groups_B=groups_N[own], rewards_B=rewards_N[own], baselines_B=means_N[own]
        )

    def _refuse_untraceable(self) -> None:
        if self.args.trace_steps < 0 or self.args.trace_prompts < 0:
            got = f"{self.args.trace_steps} and {self.args.trace_prompts}"
            raise InputError(f"expected trace_steps and trace_prompts of at least 0, got {got}")
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise InputError("expected trace_steps=0 with a sharded model, whose processes must all run alike")
        columns = set(next(iter(self.train_dataset or []), {}))
        if "prompt" not in columns:
            raise InputError(f"expected a data set of prompts with trace_steps, got the columns {sorted(columns)}")
        if self.args.trace_prompts and self.environment_factories is not None:
            raise InputError("expected trace_prompts=0 with environments, which write the prompts anew each time")

    def _keep_traces(
        self,
        inputs: list[dict[str, Any]],
        out: dict[str, Any],
        advantages_B: Tensor,
        mask_BR: Tensor,
        heard: Overheard,
    ) -> None:
        """Traces of fixed prompts, where they are due; see `flowtracer.rl.training_traces`."""
        started = time.perf_counter()
        if self._keeper is None:
            self._keeper = TraceKeeper(
                self._tracer(),
                Path(self.args.output_dir) / "traces",
                [row["prompt"] for row in itertools.islice(self.train_dataset, self.args.trace_prompts)],
                lambda prompts: self._tokenize_prompts(prompts)[0],
                every=self.args.trace_steps,
                max_new_tokens=self.args.max_completion_length,
                generation_bytes=self.args.credit_generation_bytes,
            )
        step = self.state.global_step
        if not self._keeper.due(step):
            return
        rewards_N = self._rewards(heard).nan_to_num()
        first = self.accelerator.process_index * len(inputs)
        batch = TrainedBatch(
            prompts=[row["prompt"] for row in inputs],
            prompt_ids_BP=out["prompt_ids"],
            prompt_mask_BP=out["prompt_mask"],
            response_ids_BR=out["completion_ids"],
            response_mask_BR=out["completion_mask"],
            counted_BR=mask_BR,
            rewards_B=rewards_N[first : first + len(inputs)],
            advantages_B=advantages_B,
            advantages_BR=out["advantages"],
        )
        log_traces(self.callback_handler.callbacks, self._keeper.keep(step, batch), step)
        self._metrics["train"]["traces/own_forward"].append(self._keeper.own_forward)
        self._metrics["train"]["traces/seconds"].append(time.perf_counter() - started)

    def _tracer(self) -> Tracer:
        """A tracer that reads the same flow as credit does."""
        reads = reads_of(self.credit)
        return Tracer(
            self.accelerator.unwrap_model(self.model),
            self._text_tokenizer(),
            reads.layers,
            at=reads.at,
            capacity=reads.capacity,
            graph=reads.graph,
            ends=reads.ends,
            answer_pattern=self._answer_pattern,
        )

    def _text_tokenizer(self) -> Any:
        """The tokenizer itself, also where a processor of several modalities wraps it."""
        return getattr(self.processing_class, "tokenizer", self.processing_class)

    def _log_credit(self, advantages_BR: Tensor, signals: Signals, misses: Counter[str], seconds: float) -> None:
        mask_BR = signals.mask_BR
        metrics = credit_metrics(advantages_BR, signals)
        metrics |= {"credit/own_forward": self._reader().own_forward, "credit/seconds": seconds}
        if signals.readings.answer is not None:
            metrics |= miss_shares(misses, len(mask_BR))
        lost = [f"credit/lost/{reason}" for reason in LOST]
        metrics |= {name: float(name == f"credit/lost/{self._reader().lost}") for name in lost}
        values = torch.tensor([float(value) for value in metrics.values()], device=mask_BR.device)
        means = self.accelerator.gather(values[None]).mean(0).tolist()
        logged = dict(zip(metrics, means, strict=True))
        if not self._answered and self.accelerator.is_main_process:
            warn_unanswered(logged)
        self._answered = True
        for name, value in logged.items():
            if value or name not in lost:  # a reason is worth a line where it holds
                self._metrics["train"][name].append(value)


def _refuse_options(args: Any) -> None:
    """Raise where arguments cannot go with per-token advantages."""
    if not isinstance(args, FlowGRPOConfig):
        raise InputError(f"expected args of type FlowGRPOConfig, got {type(args).__name__}")
    if getattr(args, "use_liger_kernel", False) or getattr(args, "use_liger_loss", False):
        raise InputError("expected TRL's own loss, got the Liger kernel, which takes one advantage a sequence")
    refuse_sequence_ratio(args.importance_sampling_level, args.loss_type)
    if args.credit_generation_bytes < 0:
        raise InputError(f"expected credit_generation_bytes of at least 0, got {args.credit_generation_bytes}")


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
