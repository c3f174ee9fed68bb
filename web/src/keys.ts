// The keyboard: everything that the mouse can do.

import type { ArcView } from "./arcs";
import type { Finder } from "./finder";
import type { Graph } from "./graph";
import type { Panel } from "./panel";
import type { Store } from "./state";

export function listenToKeys(store: Store, graph: Graph, arcs: ArcView, panel: Panel, finder: Finder): void {
  const { data } = graph;
  const hubs = data.hubs.map((hub) => hub.token);

  /** Along the strongest edge, or to where the flow ends. */
  const walk = (forward: boolean) => {
    const { token } = store.state;
    if (token === null) {
      panel.pin(hubs[0] ?? data.answer[0]);
      return;
    }
    const edges = forward ? graph.outOf(token) : graph.into(token);
    if (edges.length > 0) panel.pin(forward ? data.edgeTarget[edges[0]] : data.edgeSource[edges[0]]);
  };
  const nextHub = (step: number) => {
    if (hubs.length === 0) return;
    const at = store.state.token === null ? -1 : hubs.indexOf(store.state.token);
    panel.pin(hubs[at < 0 ? 0 : (at + step + hubs.length) % hubs.length]);
  };
  const actions: Record<string, () => void> = {
    ArrowRight: () => walk(true),
    ArrowLeft: () => walk(false),
    ArrowDown: () => nextHub(1),
    ArrowUp: () => nextHub(-1),
    "shift ArrowRight": () => arcs.pan(0.25),
    "shift ArrowLeft": () => arcs.pan(-0.25),
    "+": () => arcs.zoom(0.6),
    "=": () => arcs.zoom(0.6),
    "-": () => arcs.zoom(1 / 0.6),
    "0": () => store.view(0, data.length),
    "/": () => finder.focus(),
    f: () => store.set({ folded: !store.state.folded }),
    p: () => data.paths.length > 0 && panel.replay(((store.state.path ?? -1) + 1) % data.paths.length),
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const target = event.target as Element;
    if (event.key === "Escape") {
      if (target instanceof HTMLInputElement) target.blur();
      store.set({ token: null, hover: null, path: null, query: "" });
      return;
    }
    if (target.closest("input, select, textarea")) return;
    const shifted = event.shiftKey && event.key.startsWith("Arrow");
    const action = actions[shifted ? `shift ${event.key}` : event.key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}
