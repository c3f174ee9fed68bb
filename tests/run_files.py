"""A small run file, for whoever needs one of which little is to be said."""

_RUN = """
model = "{model}"
output_dir = "{out}"
[task]
name = "countdown"
problems = 4
options = {{ max_numbers = 3 }}
[credit]
name = "{credit}"
[grpo]
max_steps = 1
per_device_train_batch_size = 2
num_generations = 2
max_completion_length = 4
{options}
"""


def small_run(model, out, *options, credit="flow"):
    """The text of one; `options` are lines under [grpo]."""
    return _RUN.format(model=model, out=out, options="\n".join(options), credit=credit)
