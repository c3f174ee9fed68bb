// The sparse graph on tokens: neighbours by rank, and the share of the flow that a prefix of the edges carries.
// Edges come largest first, so an edge's index is its rank.

import type { TraceData } from "./data";

export class Graph {
  private readonly inStart: Uint32Array;
  private readonly inEdges: Uint32Array;
  private readonly outStart: Uint32Array;
  private readonly outEdges: Uint32Array;

  constructor(readonly data: TraceData) {
    [this.inStart, this.inEdges] = groupBy(data.edgeTarget, data.length);
    [this.outStart, this.outEdges] = groupBy(data.edgeSource, data.length);
  }

  /** Edges into a token, strongest first. */
  into(token: number): Uint32Array {
    return this.inEdges.subarray(this.inStart[token], this.inStart[token + 1]);
  }

  /** Edges out of a token, strongest first. */
  outOf(token: number): Uint32Array {
    return this.outEdges.subarray(this.outStart[token], this.outStart[token + 1]);
  }

  /** Probability that a walk from question to answer uses only the `n` largest edges: one forward sweep. */
  keptShare(n: number): number {
    const { flow, edgeSource, edgeFlow, sink } = this.data;
    const kept = Float64Array.from(this.data.source);
    for (let token = 0; token < this.data.length; token++) {
      for (let at = this.inStart[token]; at < this.inStart[token + 1]; at++) {
        const edge = this.inEdges[at];
        if (edge >= n) break;
        const from = edgeSource[edge];
        if (flow[from] > 0) kept[token] += (kept[from] / flow[from]) * edgeFlow[edge];
      }
    }
    let share = 0;
    for (let token = sink[0]; token < sink[1]; token++) share += kept[token];
    return Math.min(1, share);
  }

  /** The fewest largest edges that carry a share; all of them where that is too few. */
  edgesFor(share: number): number {
    let low = 0;
    let high = this.data.edgeFlow.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.keptShare(middle) >= share) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}

/** Positions of `keys` grouped by value, each group in rising order: `[starts (length + 1), positions]`. */
function groupBy(keys: ArrayLike<number>, length: number): [Uint32Array, Uint32Array] {
  const starts = new Uint32Array(length + 1);
  for (let i = 0; i < keys.length; i++) starts[keys[i] + 1]++;
  for (let i = 0; i < length; i++) starts[i + 1] += starts[i];
  const next = starts.slice();
  const positions = new Uint32Array(keys.length);
  for (let i = 0; i < keys.length; i++) positions[next[keys[i]]++] = i;
  return [starts, positions];
}
