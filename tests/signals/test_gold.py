"""Scorings with the gold answer against the same, one sequence at a time."""

import pytest
import torch

from flowtracer.errors import InputError
from flowtracer.model.logits import LogitReader
from flowtracer.signals.gold import PrefixScorer, read_gain, reveal
from flowtracer.signals.logits import token_logits
from flowtracer.text.encoding import encode_prompt
from sampling import PROMPTS, sampled_batch, sequence
from tiny import tiny_model, tiny_tokenizer

GOLDS = ["7", None, "12"]


def test_the_answer_is_revealed_to_the_user():
    messages = [{"role": "user", "content": "3 + 4?"}, {"role": "assistant", "content": "It is"}]
    assert reveal(messages, "7")[0]["content"] == "3 + 4?\n\n(The correct answer is 7.)"
    assert messages[0]["content"] == "3 + 4?", "the trainer's own row stays as it is"
    assert reveal("3 + 4 =", "7") == "(The correct answer is 7.)\n3 + 4 ="
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
        told = torch.tensor(encode_prompt(tokenizer, reveal(PROMPTS[row], GOLDS[row])))
        response_R = ids_T[start:]
        with torch.no_grad():
            logits_RV = model(torch.cat([told, response_R])[None]).logits[0, len(told) - 1 : -1].log_softmax(-1)
        expected_R = logits_RV.gather(1, response_R[:, None]).squeeze(1) - plain_BR[row, : len(response_R)]
        torch.testing.assert_close(gain_BR[row, : len(response_R)], expected_R, rtol=1e-3, atol=1e-4)


def test_prefixes_are_scored_as_one_by_one():
    model, tokenizer = tiny_model(), tiny_tokenizer()
    sampled = sampled_batch(golds=GOLDS)
    marks_BR = torch.zeros(sampled.response_ids_BR.shape, dtype=torch.bool)
    marks_BR[0, [2, 4]] = marks_BR[1, 0] = marks_BR[2, 1] = True
    marks_BR[0, len(sequence(sampled, 0)[0]) - sequence(sampled, 0)[1] - 1] = True  # the end of text
    scorer = PrefixScorer(LogitReader(model), tokenizer, sampled, rows_per_forward=3)
    start_B, behind_BR = scorer(marks_BR, "\n<answer>")
    cue = tokenizer("\n<answer>")["input_ids"]

    def expected(row, tokens):
        ids_T, start = sequence(sampled, row)
        gold = tokenizer(GOLDS[row])["input_ids"]
        whole = torch.tensor([*ids_T[: start + tokens].tolist(), *cue, *gold])
        with torch.no_grad():
            log_probs = model(whole[None]).logits[0].log_softmax(-1)
        return float(torch.stack([log_probs[-i - 2, whole[-i - 1]] for i in range(len(gold))]).sum().exp())

    assert float(start_B[0]) == pytest.approx(expected(0, 0), rel=1e-3)
    assert float(start_B[2]) == pytest.approx(expected(2, 0), rel=1e-3)
    assert float(behind_BR[0, 2]) == pytest.approx(expected(0, 3), rel=1e-3)
    assert float(behind_BR[2, 1]) == pytest.approx(expected(2, 2), rel=1e-3)
    end = int(marks_BR[0].nonzero()[-1])
    assert float(behind_BR[0, end]) == pytest.approx(expected(0, end), rel=1e-3), "the end of text is cut off"
    assert float(start_B[1]) == 0
    assert not behind_BR[1].any()
    assert not behind_BR[~marks_BR].any()


def test_without_gold_answers_the_message_says_so():
    sampled, model = sampled_batch(), tiny_model()
    with pytest.raises(InputError, match='column "gold"'):
        PrefixScorer(LogitReader(model), tiny_tokenizer(), sampled)
