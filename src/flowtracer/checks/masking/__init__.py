"""The causal check: hide chosen tokens of the reasoning from all later ones, answer again, and count what changed."""

from flowtracer.checks.masking.agreement import (
    EffectAgreement,
    ScoreAgreement,
    agree,
    agreement_of,
    summarise_agreement,
)
from flowtracer.checks.masking.answers import same_answer
from flowtracer.checks.masking.check import SHARES, MaskingCheck, Outcome, VariantOutcome
from flowtracer.checks.masking.effects import hidden_effects, with_all_effects, with_hub_effects
from flowtracer.checks.masking.folder import MaskingFolder
from flowtracer.checks.masking.rerun import WAYS, Rereader, Rereading
from flowtracer.checks.masking.scores import TokenScorer
from flowtracer.checks.masking.summary import ChoiceSummary, LogProbCurve, MaskingSummary, summarise
from flowtracer.checks.masking.variants import Variant, choose_variants

__all__ = [
    "SHARES",
    "WAYS",
    "ChoiceSummary",
    "EffectAgreement",
    "LogProbCurve",
    "MaskingCheck",
    "MaskingFolder",
    "MaskingSummary",
    "Outcome",
    "Rereader",
    "Rereading",
    "ScoreAgreement",
    "TokenScorer",
    "Variant",
    "VariantOutcome",
    "agree",
    "agreement_of",
    "choose_variants",
    "hidden_effects",
    "same_answer",
    "summarise",
    "summarise_agreement",
    "with_all_effects",
    "with_hub_effects",
]
