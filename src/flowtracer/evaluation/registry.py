"""The public benchmarks, by name: id, configuration and split on the hub, and the rule of grading."""

from flowtracer.evaluation.base import LETTER, Benchmark

BENCHMARKS: dict[str, Benchmark] = {
    # 1,319 problems; `answer` is a worked solution that ends in "#### 18".
    "gsm8k": Benchmark(hub="openai/gsm8k", config="main", split="test", rule="number"),
    # 500 problems of MATH (Lightman et al. 2023); `problem`, `answer`.
    "math500": Benchmark(hub="HuggingFaceH4/MATH-500", split="test", rule="math"),
    # 30 problems each, answers are whole numbers from 0 to 999; `problem`, `answer`.
    "aime24": Benchmark(hub="HuggingFaceH4/aime_2024", split="train", rule="math"),
    "aime25": Benchmark(hub="math-ai/aime25", split="test", rule="math"),
    # 40 problems with whole numbers for answers; `question`, `answer`.
    "amc23": Benchmark(hub="math-ai/amc23", split="test", rule="math"),
    # The English competition problems without pictures whose answers can be checked; `question`, `final_answer`,
    # and `error` where an answer may be off by that much.
    "olympiadbench": Benchmark(hub="Hothan/OlympiadBench", config="OE_TO_maths_en_COMP", split="train", rule="math"),
    # 187,496 questions of many fields, with choices or short answers; `meta_data.question`,
    # `reward_model.ground_truth`. There is no test split: keep the questions that are drawn here out of training.
    "crossthinkqa": Benchmark(
        hub="nvidia/Nemotron-CrossThink",
        split="train_qa",
        rule="short",
        instruction=LETTER.replace("the letter of your choice", "your final answer (the letter, if there are choices)"),
        drawn=1000,
    ),
}
