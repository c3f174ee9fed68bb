"""What a credit strategy is worth, without a training run: its step against the true policy gradient (docs/meter.md).

1. Rollouts (`rollouts.py`) give the true gradient `g*` in two halves, and Adam's second moments (`direction.py`), by
   gradients of log-probabilities backward and forward (`gradient.py`).
2. On minibatches that share no problem with it, each strategy places its advantages (`strategies.py`) as the trainer's
   loss weighs them (`loss.py`), and its step is measured (`minibatch.py`).
3. Out of these come its worth over plain GRPO and the best mix (`worth.py`), and how its scores agree with what tokens
   truly contribute (`truth.py`).

Letters beside the legend of shapes: K maps of advantages, N the numbers of a gradient, M minibatches, Q tenths of a
score, D directions; 2 are the halves of `g*`.
"""

from flowtracer.checks.meter.result import MeterResult
from flowtracer.checks.meter.run import MeterOptions, meter

__all__ = ["MeterOptions", "MeterResult", "meter"]
