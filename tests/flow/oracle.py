"""The dumbest possible flow: every path from source to sink, one by one, in exact rationals."""

import math
from fractions import Fraction
from itertools import pairwise


class Oracle:
    """All paths of a small graph. `W[k][i]`: capacity from `i` to the later `k`; question and answer as sets."""

    def __init__(self, W, question, answer):
        self.length = len(W)
        self.W = [[Fraction(float(W[k][i])) for i in range(k)] for k in range(self.length)]
        self.question, self.answer = sorted(question), set(answer)
        self.reach = [self._reach(i) for i in range(self.length)]
        entering = [q for q in self.question if self.reach[q] > 0]
        self.source = [Fraction(i in entering, max(len(entering), 1)) for i in range(self.length)]
        self.paths = [path for q in entering for path in self._walk((q,), self.source[q])]
        self.flow = [self._sum(lambda path, t=t: t in path) for t in range(self.length)]

    def _reach(self, i):
        """Sum over all paths from `i` to the answer of the product of their capacities."""
        if i in self.answer:
            return Fraction(1)
        return sum((self.W[k][i] * self._reach(k) for k in range(i + 1, self.length)), Fraction(0))

    def _walk(self, path, probability):
        i = path[-1]
        if i in self.answer:
            yield path, probability
            return
        for k in range(i + 1, self.length):
            step = self.W[k][i] * self.reach[k] / self.reach[i]
            if step > 0:
                yield from self._walk((*path, k), probability * step)

    def _sum(self, chosen):
        return sum((probability for path, probability in self.paths if chosen(path)), Fraction(0))

    def edge_flow(self, i, k):
        return self._sum(lambda path: (i, k) in set(pairwise(path)))

    def edges(self):
        """Every edge that carries flow, by (source, target)."""
        pairs = {pair for path, _ in self.paths for pair in pairwise(path)}
        return {pair: self.edge_flow(*pair) for pair in pairs}

    def kept_share(self, kept):
        """Probability that a walk uses edges of `kept` only."""
        return self._sum(lambda path: all(pair in kept for pair in pairwise(path)))

    def share_through(self, tokens):
        return self._sum(lambda path: bool(set(path) & set(tokens)))

    def best_paths(self):
        """Probabilities, largest first."""
        return sorted((probability for _, probability in self.paths), reverse=True)

    def fan(self, flows):
        """Exp of the entropy of shares."""
        total = sum(flows)
        shares = [float(flow / total) for flow in flows if flow > 0] if total else []
        return math.exp(-sum(p * math.log(p) for p in shares)) if shares else 0.0
