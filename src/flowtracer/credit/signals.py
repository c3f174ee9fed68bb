"""What a strategy of credit may read of a batch, one frozen dataclass a need, and how it says what it reads.

`NEEDS` are the names. A strategy names those that it reads, by itself (`needs = {"logits"}`) or with what they are read
by (`reads = Reads(needs={"flow"}, layers=(3, 4), at="prediction")`). These are computed and no others, and stand in
`Signals` under the need's name: `signals.logits.entropy_BR`, `signals.flow.throughput_BR`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, fields
from types import FunctionType
from typing import Protocol, TypeVar, runtime_checkable

from torch import Tensor

from flowtracer.errors import InputError
from flowtracer.shapes import Bool, Float, Int

Need = TypeVar("Need")

CAPACITIES = ("attention", "value", "alti")
"""What an edge may be where credit is placed: what a forward pass alone shows."""


@runtime_checkable
class GoldScorer(Protocol):
    """Runs the model to see how likely the gold answer is."""

    def __call__(self, marks_BR: Tensor, cue: str, end: str = "") -> tuple[Tensor, Tensor]:
        """Log p of the gold answer with `end`, asked for by `cue` behind the prompt alone (B,) and behind each marked
        token (B, R); -inf elsewhere, and where no gold answer is known.
        """


@runtime_checkable
class Aligner(Protocol):
    """Runs the model to see what a step on each token would move."""

    def __call__(self, groups_B: Tensor, right_B: Tensor) -> Tensor:
        """Inner product (B, R) of the gradient of each token's log p, at the output layer, with the sum of those of all
        tokens of its group's right responses; 0 in groups whose responses are all right or all wrong.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupSignals:
    """What a trainer knows of the responses to one prompt."""

    token_ids_BR: Int[Tensor, "B R"]
    groups_B: Int[Tensor, " B"]
    """Number of each response's group: the responses to one prompt, as far as they are in this batch."""
    rewards_B: Float[Tensor, " B"]
    baselines_B: Float[Tensor, " B"]
    """Mean reward of each response's whole group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerSignals:
    """Where each response answers."""

    answer_BR: Bool[Tensor, "B R"]
    """The response's own final answer; none where it has none."""
    whole_BR: Bool[Tensor, "B R"]
    """The answer with what opens it, such as `<answer>`, and with the brace that closes it where it is a box."""
    reasoning_BR: Bool[Tensor, "B R"]
    """Tokens before the answer and before what opens it, such as a box; none where there is no answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowSignals:
    """Flow from the prompt to the response's own answer."""

    throughput_BR: Float[Tensor, "B R"]
    """tau of each response token."""
    traced_B: Bool[Tensor, " B"]
    """Whether the response has an answer that the question flows to; where not, its throughput says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionSignals:
    """Attention averaged over heads and layers."""

    received_BR: Float[Tensor, "B R"]
    """Attention that later response tokens pay to each, summed."""
    row_entropy_BR: Float[Tensor, "B R"]
    """Entropy of the row of attention of each token over the log of what it could attend to: 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadSignals:
    """Attention of short-sighted and of far-sighted heads."""

    local_distance_BR: Float[Tensor, "B R"]
    """WAAD: mean distance, cut off at 10 tokens, that the short-sighted heads look back."""
    future_attention_BR: Float[Tensor, "B R"]
    """FAI: mean attention that the far-sighted heads of tokens 10 to 100 later pay to each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitSignals:
    """What the policy predicted, at the sampling temperature."""

    entropy_BR: Float[Tensor, "B R"]
    """Entropy, in nats, of the distribution that each token was drawn from."""
    log_prob_BR: Float[Tensor, "B R"]
    """Log-probability of each token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSignals:
    """What one step on a token alone would change at the output."""

    gradient_BRD: Float[Tensor, "B R D"]
    """Gradient of log p of each token with respect to its own row of the LM head: `(1 - p_t) h_t`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlignmentSignals:
    """How far tokens and the right responses of their group pull the same way."""

    align: Aligner


@dataclass(frozen=True, slots=True, kw_only=True)
class GradientSignals:
    """How sensitive log p(own answer), at the sampling temperature, is to the embeddings.

    With the target "answer" that is the answer alone, with "box" the whole box, its marker and closing brace included.
    """

    saliency_BR: Float[Tensor, "B R"]
    """Norm of embedding times gradient of -log p(own answer), at each token."""
    saliency_before_BR: Float[Tensor, "B R"]
    """The same one position before, where the token is predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerturbationSignals:
    """How far noise on the reasoning moves the distribution of the answer."""

    influence_BR: Float[Tensor, "B R"]
    """|gradient . embedding| of that divergence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GainSignals:
    """What knowing the gold answer would change."""

    gain_BR: Float[Tensor, "B R"]
    """How much the log-probability of each token grows when the prompt reveals the gold answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldSignals:
    """How likely the gold answer is, asked for behind prefixes of the response."""

    score: GoldScorer


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualSignals:
    """How much the images of the prompt tell about the response."""

    divergence_BR: Float[Tensor, "B R"]
    """KL divergence, in nats, of the distribution that each token was drawn from, from that without the images."""
    shown_B: Bool[Tensor, " B"]
    """Whether the prompt shows any; where not, the divergence says nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackenedSignals:
    """What the policy would have predicted of images whose squares are black, half of them."""

    blackened_log_prob_BR: Float[Tensor, "B R"]
    """Log-probability of each token."""
    shown_B: Bool[Tensor, " B"]
    """Whether the prompt shows any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisySignals:
    """What the policy would have predicted of images with mild noise."""

    noisy_log_prob_BR: Float[Tensor, "B R"]
    """Log-probability of each token."""
    shown_B: Bool[Tensor, " B"]
    """Whether the prompt shows any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What was read for a strategy; None is what it did not ask for."""

    group: GroupSignals | None = None
    answer: AnswerSignals | None = None
    flow: FlowSignals | None = None
    attention: AttentionSignals | None = None
    heads: HeadSignals | None = None
    logits: LogitSignals | None = None
    output: OutputSignals | None = None
    alignment: AlignmentSignals | None = None
    gradient: GradientSignals | None = None
    perturbation: PerturbationSignals | None = None
    gain: GainSignals | None = None
    gold: GoldSignals | None = None
    visual: VisualSignals | None = None
    blackened: BlackenedSignals | None = None
    noisy: NoisySignals | None = None


NEEDS = tuple(each.name for each in fields(Readings))
"""What a strategy may need, by name."""
OF_IMAGES = frozenset({"visual", "blackened", "noisy"})
"""Needs that only a model of images can meet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """What a strategy reads.

    Raises:
        InputError: A need, a place or a target that does not exist.
    """

    needs: AbstractSet[str] = frozenset()
    """Names among `NEEDS`."""
    layers: Sequence[int] | None = None
    """Decoder layers whose attention is read; None for the middle third, five of it for `heads`, and for flow over
    layers all that attend."""
    at: str | None = None
    """Where the flow ends: at the answer's "token"s, or one before, at their "prediction"; None is read as "token" over
    tokens, and as "prediction" over layers."""
    capacity: str = "attention"
    """What an edge of the flow's graph is: one of `CAPACITIES`."""
    graph: str = "tokens"
    """The flow's graph: on "tokens", or "layered", a node for each token at each layer."""
    ends: str = "anywhere"
    """Over layers, where backward walks end: "anywhere", or in the "question"."""
    target: str = "answer"
    r"""What counts as answer: the final "answer", or the first complete \boxed{}, "box"."""

    def __post_init__(self) -> None:
        # Equal for equal content, whatever the caller's containers were.
        object.__setattr__(self, "needs", frozenset(self.needs))
        object.__setattr__(self, "layers", None if self.layers is None else tuple(self.layers))
        if not self.needs <= set(NEEDS):
            raise InputError(f"expected needs among {sorted(NEEDS)}, got {sorted(self.needs - set(NEEDS))}")
        if self.at is None:
            object.__setattr__(self, "at", "prediction" if self.graph == "layered" else "token")
        check_choice("at", str(self.at), ("token", "prediction"))
        if self.capacity == "gradient":
            raise InputError(
                f"expected capacity among {', '.join(CAPACITIES)}, got 'gradient', which takes a backward pass through "
                "the whole model: traces can be made of it, and credit 'gradient' reads gradients at the embeddings"
            )
        check_choice("capacity", self.capacity, CAPACITIES)
        check_choice("graph", self.graph, ("tokens", "layered"))
        check_choice("ends", self.ends, ("anywhere", "question"))
        check_choice("target", self.target, ("answer", "box"))


def reads_of(credit: Callable[..., object]) -> Reads:
    """What a strategy reads: its `reads`, else its `needs` with the defaults, else nothing.

    Raises:
        InputError: A need that does not exist, or a function with an attribute that nobody looks at.
    """
    if isinstance(credit, FunctionType):
        known = ("needs", "reads", "scores", "speaks")
        unknown = sorted(name for name in vars(credit) if name not in known and not name.startswith("_"))
        if unknown:
            raise InputError(f"expected attributes of a strategy among {', '.join(known)}, got {', '.join(unknown)}")
    reads = getattr(credit, "reads", None)
    if reads is None:
        return Reads(needs=getattr(credit, "needs", frozenset()))
    if not isinstance(reads, Reads):
        raise InputError(f"expected reads of a strategy as Reads(needs=..., ...), got {type(reads).__name__}")
    return reads


def needs_of(credit: Callable[..., object]) -> frozenset[str]:
    """What a strategy needs, by name.

    Raises:
        InputError: A need that does not exist.
    """
    return frozenset(reads_of(credit).needs)


def _as_it_is(own: Tensor) -> Tensor:
    return own


@dataclass(frozen=True, slots=True, kw_only=True)
class Signals:
    """Per-token signals of a batch of responses.

    Each need of a strategy is an attribute of its own name, and raises `InputError` where it was not computed.
    """

    mask_BR: Bool[Tensor, "B R"]
    """Tokens that the loss counts; only these are ranked and weighted."""
    advantages_B: Float[Tensor, " B"]
    """Advantage of each response."""
    seeds_B: tuple[int, ...]
    """A seed of each response, the same in whatever batch it stands."""
    trained: float = 0.0
    """Share of the training that is done."""
    total: Callable[[Tensor], Tensor] = _as_it_is
    """A sum over all processes that train, of a tensor that each of them has; every process calls it alike."""
    readings: Readings = field(default_factory=Readings)

    @property
    def group(self) -> GroupSignals:
        """Token ids, groups and rewards."""
        return _there("group", self.readings.group)

    @property
    def answer(self) -> AnswerSignals:
        """Where each response answers."""
        return _there("answer", self.readings.answer)

    @property
    def flow(self) -> FlowSignals:
        """Throughput."""
        return _there("flow", self.readings.flow)

    @property
    def attention(self) -> AttentionSignals:
        """Attention received, and entropy of rows."""
        return _there("attention", self.readings.attention)

    @property
    def heads(self) -> HeadSignals:
        """WAAD and FAI."""
        return _there("heads", self.readings.heads)

    @property
    def logits(self) -> LogitSignals:
        """Predictive entropy, and log-probabilities."""
        return _there("logits", self.readings.logits)

    @property
    def output(self) -> OutputSignals:
        """Gradients at the output."""
        return _there("output", self.readings.output)

    @property
    def alignment(self) -> AlignmentSignals:
        """Alignment with the right responses."""
        return _there("alignment", self.readings.alignment)

    @property
    def gradient(self) -> GradientSignals:
        """Saliency of the embeddings."""
        return _there("gradient", self.readings.gradient)

    @property
    def perturbation(self) -> PerturbationSignals:
        """Influence under noise."""
        return _there("perturbation", self.readings.perturbation)

    @property
    def gain(self) -> GainSignals:
        """Gain by the gold answer."""
        return _there("gain", self.readings.gain)

    @property
    def gold(self) -> GoldSignals:
        """Scores of the gold answer."""
        return _there("gold", self.readings.gold)

    @property
    def visual(self) -> VisualSignals:
        """Divergence from what would be said without the images."""
        return _there("visual", self.readings.visual)

    @property
    def blackened(self) -> BlackenedSignals:
        """Log-probabilities with half of the images black."""
        return _there("blackened", self.readings.blackened)

    @property
    def noisy(self) -> NoisySignals:
        """Log-probabilities with noise on the images."""
        return _there("noisy", self.readings.noisy)

    def weighted(self, factors_BR: Float[Tensor, "B R"]) -> Float[Tensor, "B R"]:
        """Each response's advantage times its tokens' factors; with factors of 1, the advantage to the bit."""
        return self.advantages_B[:, None] * factors_BR.to(self.advantages_B.dtype)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise unless an option is one of its choices."""
    if value not in choices:
        raise InputError(f"expected {name} among {', '.join(choices)}, got {value!r}")


def _there(name: str, signals: Need | None) -> Need:
    if signals is None:
        raise InputError(
            f'expected signals of {name}, got none: this credit needs {name}; name it in its needs, {{"{name}", ...}}'
        )
    return signals
