"""GSM-Symbolic's reading of numbers, and the golds that it inherits."""

import ast
import importlib
import inspect
from collections.abc import Callable
from fractions import Fraction
from random import Random
from typing import Any

import pytest

from flowtracer.tasks import GsmSymbolic, Problem
from flowtracer.tasks.gsm_symbolic import UNSOUND


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (r"So it is \boxed{18}.", "correct"),
        ("#### 18", "correct"),
        ("<answer>$18.00</answer>", "correct"),
        ("<answer>17.99</answer>", "wrong_value"),
        ("<answer>-18</answer>", "wrong_value"),
        ("<answer>18 or 19</answer>", "not_a_number"),
        ("18", "no_answer"),
    ],
)
def test_verify(response, reason):
    problem = Problem(id="p", key="k", prompt=[], gold="18", facts={"number": "18", "template": 0})
    assert GsmSymbolic().verify(problem, response).reason == reason


def test_unsound_templates_are_not_drawn_and_the_others_all_are():
    from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok

    drawn = {p.facts["template"] for p in GsmSymbolic().problems("train", 3000)}
    assert drawn == set(tasks_ok) - set(UNSOUND)


class _CheckDivisions(ast.NodeTransformer):
    """Sends `//`, `int` and `round` through functions that refuse to lose anything.

    Only in the functions that compute the answer: those that pick the numbers may round as they like.
    """

    inside = False

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        before, self.inside = self.inside, self.inside or node.name == "generate_from_variables"
        self.generic_visit(node)
        self.inside = before
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        self.generic_visit(node)
        if self.inside and isinstance(node.op, ast.FloorDiv):
            return ast.Call(ast.Name("_whole", ast.Load()), [node.left, node.right], [])
        return node

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if self.inside and isinstance(node.func, ast.Name) and node.func.id in {"int", "round"}:
            node.func = ast.Name(f"_{node.func.id}", ast.Load())
        return node


class LossyError(Exception):
    pass


def _lossless(exact, value):
    if abs(exact - value) > 1e-6:  # float noise, such as 14.000000000000002, is not a loss
        raise LossyError
    return value


def _probed(half: str) -> dict[int, Callable[[Random, float], dict[str, Any]]]:
    """The templates of one generator module, rewritten to raise where a gold would be truncated."""
    module = importlib.import_module(f"reasoning_gym.arithmetic.gsm_symbolic.generators_{half}")
    tree = ast.fix_missing_locations(_CheckDivisions().visit(ast.parse(inspect.getsource(module))))
    space: dict[str, Any] = {
        "_whole": lambda a, b: _lossless(a / b, a // b),
        "_int": lambda x: _lossless(x, int(x)),
        "_round": lambda x, places=0: _lossless(x, round(x, places)),
    }
    exec(compile(tree, module.__name__, "exec"), space)  # noqa: S102
    prefix = "generate_"
    return {int(name.removeprefix(prefix)): f for name, f in space.items() if name.startswith(prefix)}


@pytest.mark.parametrize("half", ["00_49", "50_99"])
def test_no_gold_of_a_drawn_template_is_truncated(half):
    from reasoning_gym.arithmetic.gsm_symbolic.gsm_symbolic import tasks_ok

    templates = _probed(half)
    drawn = templates.keys() & (set(tasks_ok) - set(UNSOUND))
    assert len(drawn) > 30
    for template in drawn:
        for seed in range(300):
            assert Fraction(templates[template](Random(seed), 1.0)["answer"]) >= 0


@pytest.mark.parametrize(("half", "template"), [("00_49", 2), ("50_99", 75)])
def test_the_probe_sees_a_truncated_gold(half, template):
    generate = _probed(half)[template]
    with pytest.raises(LossyError):
        all(generate(Random(seed), 1.0) for seed in range(100))
