"""Scorings with the gold answer against the same, one sequence at a time."""

import pytest
import torch

from flowtracer.errors import InputError
from flowtracer.model.logits import LogitReader
from flowtracer.signals.gold import ASKING, GIVING, PrefixScorer, packs_truly, read_gain, reveal
from flowtracer.signals.logits import token_logits
from sampling import PROMPTS, sampled_batch, sequence
from tiny import tiny_model, tiny_tokenizer

GOLDS = ["7", None, "12"]


def test_the_answer_is_revealed_in_the_words_of_the_source():
    asked = [{"role": "user", "content": f"3 + 4?\n{ASKING}"}, {"role": "assistant", "content": "It is"}]
    given = "3 + 4?\nPlease reason step by step given the final answer within \\boxed{}."
    told, opening = reveal(asked, "7")
    assert told[0]["content"] == given
    assert opening == "\\boxed{7}\n"
    assert asked[0]["content"].endswith(ASKING), "the trainer's own row stays as it is"
    assert reveal([{"role": "user", "content": "3 + 4?"}], "7")[0][0]["content"] == given
    assert reveal(f"3 + 4?\n{ASKING}\nA:", "7")[0] == f"{given}\nA:"
    assert reveal("3 + 4 =", "7")[0] == f"{GIVING}\n3 + 4 ="
    with pytest.raises(InputError, match="user message"):
        reveal([{"role": "system", "content": "x"}], "7")


def test_gain_is_the_difference_of_two_log_probabilities():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    sampled = sampled_batch(golds=GOLDS)
    reader = LogitReader(model)
    _, plain_BR = token_logits(reader, sampled)
    gain_BR = read_gain(reader, tokenizer, sampled, plain_BR, rows_per_forward=2)
    assert not gain_BR[1].any(), "no gold answer"
    for row in (0, 2):
        ids_T, start = sequence(sampled, row)
        prompt, opening = reveal(PROMPTS[row], GOLDS[row])
        told = torch.tensor(tokenizer(prompt + opening)["input_ids"])
        response_R = ids_T[start:]
        with torch.no_grad():
            logits_RV = model(torch.cat([told, response_R])[None]).logits[0, len(told) - 1 : -1].log_softmax(-1)
        expected_R = logits_RV.gather(1, response_R[:, None]).squeeze(1) - plain_BR[row, : len(response_R)]
        torch.testing.assert_close(gain_BR[row, : len(response_R)], expected_R, rtol=1e-3, atol=1e-4)


def test_an_empty_gold_answer_is_certain():
    sampled = sampled_batch([0], golds=[""])
    start_B, behind_BR = PrefixScorer(LogitReader(tiny_model()), tiny_tokenizer(), sampled)(
        sampled.response_mask_BR.bool(), ""
    )
    assert start_B.tolist() == [0]
    assert not behind_BR.any()


FAMILIES = [
    ("llama", {}, True),
    ("gpt2", {"n_positions": 512, "n_embd": 32, "n_layer": 4, "n_head": 4}, True),
    ("mistral", {"sliding_window": 6}, False),
    ("gemma2", {"sliding_window": 6, "query_pre_attn_scalar": 8}, False),
]


@pytest.mark.parametrize(("family", "options", "packs"), FAMILIES)
@pytest.mark.parametrize(("cue", "end"), [("\n<answer>", ""), ("", "}")])
def test_prefixes_are_scored_as_one_by_one(family, options, packs, cue, end):
    model, tokenizer = tiny_model(family, **options), tiny_tokenizer()
    sampled = sampled_batch(golds=GOLDS)
    marks_BR = torch.zeros(sampled.response_ids_BR.shape, dtype=torch.bool)
    marks_BR[0, [2, 4]] = marks_BR[1, 0] = marks_BR[2, 1] = True
    marks_BR[0, len(sequence(sampled, 0)[0]) - sequence(sampled, 0)[1] - 1] = True  # the end of text
    reader = LogitReader(model)
    assert packs_truly(reader) == packs
    scorer = PrefixScorer(reader, tokenizer, sampled, rows_per_forward=3)
    start_B, behind_BR = scorer(marks_BR, cue, end)
    asking = tokenizer(cue)["input_ids"]

    def expected(row, tokens):
        ids_T, start = sequence(sampled, row)
        gold = tokenizer(GOLDS[row] + end)["input_ids"]
        whole = torch.tensor([*ids_T[: start + tokens].tolist(), *asking, *gold])
        with torch.no_grad():
            log_probs = model(whole[None]).logits[0].log_softmax(-1)
        return float(torch.stack([log_probs[-i - 2, whole[-i - 1]] for i in range(len(gold))]).sum())

    assert float(start_B[0]) == pytest.approx(expected(0, 0), rel=1e-4)
    assert float(start_B[2]) == pytest.approx(expected(2, 0), rel=1e-4)
    assert float(behind_BR[0, 2]) == pytest.approx(expected(0, 3), rel=1e-4)
    assert float(behind_BR[2, 1]) == pytest.approx(expected(2, 2), rel=1e-4)
    last = int(marks_BR[0].nonzero()[-1])
    assert float(behind_BR[0, last]) == pytest.approx(expected(0, last), rel=1e-4), "the end of text is cut off"
    assert start_B[1] == -torch.inf
    assert bool((behind_BR[1] == -torch.inf).all())
    assert bool((behind_BR[~marks_BR] == -torch.inf).all())


def test_all_prefixes_of_a_batch_are_scored_in_one_forward():
    model, sampled = tiny_model(), sampled_batch([0, 2], golds=GOLDS)
    scorer = PrefixScorer(LogitReader(model), tiny_tokenizer(), sampled)
    marks_BR = sampled.response_mask_BR.bool()
    scorer(marks_BR, "\n<answer>")  # packing proves itself once
    calls = []
    model.model.register_forward_hook(lambda *_: calls.append(1))
    scorer(marks_BR, "\n<answer>")
    assert calls == [1]


def test_without_gold_answers_the_message_says_so():
    sampled, model = sampled_batch(), tiny_model()
    with pytest.raises(InputError, match='column "gold"'):
        PrefixScorer(LogitReader(model), tiny_tokenizer(), sampled)
