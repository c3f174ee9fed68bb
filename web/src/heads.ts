// Which layers and heads carry the flow: of the whole trace, exactly; of a selected token, by the heads that give most
// to each of its edges.

import { element, find, percent } from "./format";
import type { Graph } from "./graph";
import type { Store } from "./state";
import type { TokenText } from "./text";

const LISTED = 8;

export class HeadList {
  private readonly layers = find<HTMLElement>("#layers");
  private readonly heads = find<HTMLElement>("#heads");
  private readonly of = find<HTMLElement>("#heads-of");

  constructor(
    private readonly store: Store,
    private readonly graph: Graph,
    private readonly text: TokenText,
  ) {
    const known = graph.data.headFlow.length > 0;
    find<HTMLElement>("#heads-section").hidden = !known;
    if (!known) return;
    store.subscribe((_, changed) => (changed.has("token") || changed.has("hover")) && this.show());
    this.show();
  }

  private show(): void {
    const { data } = this.graph;
    const token = this.store.focus;
    const given = token === null ? data.headFlow : this.through(token);
    this.of.textContent = token === null ? "of all flow" : `of the flow through \u201c${this.text.label(token)}\u201d`;
    this.showLayers(given);
    this.showHeads(given);
  }

  /** Share of the flow into and out of a token that each head gives, as far as its edges tell. */
  private through(token: number): Float32Array {
    const { data } = this.graph;
    const told = data.heads_per_edge > 0 ? data.edgeHead.length / data.heads_per_edge : 0;
    const given = new Float32Array(data.headFlow.length);
    let total = 0;
    for (const edge of [...this.graph.into(token), ...this.graph.outOf(token)]) {
      if (edge >= told) continue;
      total += data.edgeFlow[edge];
      for (let rank = 0; rank < data.heads_per_edge; rank++) {
        const at = rank * told + edge;
        given[data.edgeHead[at]] += (data.edgeFlow[edge] * data.edgeHeadShare[at]) / 255;
      }
    }
    return total > 0 ? given.map((flow) => flow / total) : given;
  }

  private showLayers(given: Float32Array): void {
    const { layers } = this.graph.data;
    const width = given.length / layers.length;
    const sums = layers.map((_, at) => given.subarray(at * width, (at + 1) * width).reduce((a, b) => a + b, 0));
    const largest = Math.max(...sums, 1e-30);
    this.layers.replaceChildren(
      ...layers.map((layer, at) => {
        const bar = element("i", "", { title: `layer ${layer}: ${percent(sums[at])}` });
        bar.style.blockSize = `${((sums[at] / largest) * 100).toFixed(1)}%`;
        return element("span", "column", {}, element("span", "well", {}, bar), String(layer));
      }),
    );
  }

  private showHeads(given: Float32Array): void {
    const { layers } = this.graph.data;
    const width = given.length / layers.length;
    const ranked = Array.from(given.keys()).sort((a, b) => given[b] - given[a]);
    const rows = ranked.slice(0, LISTED).filter((at) => given[at] > 0);
    this.heads.replaceChildren(
      ...rows.map((at) => {
        const bar = element("i");
        bar.style.inlineSize = `${((given[at] / given[ranked[0]]) * 100).toFixed(1)}%`;
        const name = element(
          "span",
          "name",
          {},
          `layer ${layers[Math.floor(at / width)]}`,
          element("small", "", {}, `head ${at % width}`),
        );
        return element(
          "li",
          "row",
          {},
          name,
          element("span", "value", {}, percent(given[at])),
          element("span", "track", {}, bar),
        );
      }),
    );
  }
}
