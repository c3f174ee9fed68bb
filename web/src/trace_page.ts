// The page of one trace: views over one store.

import { ArcView } from "./arcs";
import { creditLevels } from "./credit";
import { unpackTrace } from "./data";
import { download, jsonExport, pngFigure, stem, svgFigure } from "./exports";
import { Finder } from "./finder";
import { count, find, percent } from "./format";
import { Graph } from "./graph";
import { HeadList } from "./heads";
import { listenToKeys } from "./keys";
import { Minimap } from "./minimap";
import { applyTheme, readPalette } from "./palette";
import { Panel } from "./panel";
import { Ribbon } from "./ribbon";
import { Store } from "./state";
import { TokenText } from "./text";

/** Edges that a first picture shows at most; more is one move of the slider away. */
const FIRST_EDGES = 1200;

export async function openTracePage(): Promise<void> {
  const data = await unpackTrace(find("#trace-data").textContent ?? "");
  const graph = new Graph(data);
  const text = new TokenText(data);
  const levels = creditLevels(data);
  const most = graph.keptShare(data.edgeFlow.length);
  const share = Math.max(0.01, Math.floor(Math.min(0.5, graph.keptShare(FIRST_EDGES)) * 100) / 100);
  const store = new Store(
    { token: null, hover: null, from: 0, to: data.length, share, path: null, query: "", theme: "auto", folded: true },
    data.length,
    data.paths.length,
  );
  connectHash(store);
  applyTheme(store.state.theme);

  const ribbon = new Ribbon(store, graph, text, levels);
  const arcs = new ArcView(store, graph, text, levels, readPalette(), graph.edgesFor(share));
  const minimap = new Minimap(store, data, readPalette());
  const panel = new Panel(store, graph, text, (token) => ribbon.scrollTo(token));
  new HeadList(store, graph, text);
  const show = (found: readonly number[]) => {
    ribbon.setFound(found);
    minimap.setFound(found);
  };
  const finder = new Finder(store, data, show, (token) => panel.pin(token));
  listenToKeys(store, graph, arcs, panel, finder);
  connectSlider(store, graph, arcs, most);
  connectTheme(store, arcs, minimap);
  connectFold(store);
  connectExports(arcs, text, graph);
  if (store.state.token === null) ribbon.scrollToReasoning();
}

/** One slider, in the share of the flow that is kept. */
function connectSlider(store: Store, graph: Graph, arcs: ArcView, most: number): void {
  const slider = find<HTMLInputElement>("#share");
  const output = find<HTMLOutputElement>("#share-value");
  slider.max = String(Math.max(1, Math.floor(most * 100)));
  const show = () => {
    const edges = graph.edgesFor(Math.min(store.state.share, most));
    slider.value = String(Math.round(store.state.share * 100));
    output.textContent = `${percent(store.state.share)} of flow kept \u00b7 ${count(edges)} edges`;
    arcs.setEdges(edges);
  };
  slider.addEventListener("input", () => store.set({ share: Number(slider.value) / 100 }));
  store.subscribe((_, changed) => changed.has("share") && show());
  show();
}

function connectTheme(store: Store, arcs: ArcView, minimap: Minimap): void {
  const repaint = () => {
    applyTheme(store.state.theme);
    const palette = readPalette();
    arcs.setPalette(palette);
    minimap.setPalette(palette);
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  find<HTMLButtonElement>("#theme").addEventListener("click", () => {
    store.set({ theme: document.documentElement.dataset.theme === "dark" ? "light" : "dark" });
  });
  store.subscribe((_, changed) => changed.has("theme") && repaint());
}

function connectFold(store: Store): void {
  const button = find<HTMLButtonElement>("#fold");
  const tell = (folded: boolean) => (button.textContent = folded ? "Unfold all" : "Fold quiet sentences");
  button.hidden = !document.querySelector(".quiet");
  button.addEventListener("click", () => store.set({ folded: !store.state.folded }));
  store.subscribe((state, changed) => {
    if (changed.has("folded")) tell(state.folded);
  });
  tell(store.state.folded);
}

function connectExports(arcs: ArcView, text: TokenText, graph: Graph): void {
  const { data } = graph;
  const compose = (width: number, height: number) => arcs.compose(width, height);
  const on = (id: string, action: () => void | Promise<void>) =>
    find(`#${id}`).addEventListener("click", () => void action());
  on("export-svg", () => download(`${stem(data)}.svg`, svgFigure(compose, data), "image/svg+xml"));
  on("export-png", async () => download(`${stem(data)}.png`, await pngFigure(compose, data)));
  on("export-json", () => download(`${stem(data)}.json`, jsonExport(data, text), "application/json"));
}

/** The URL follows the state, and the state a changed URL. */
function connectHash(store: Store): void {
  let written = "";
  let pending: ReturnType<typeof setTimeout> | undefined;
  if (location.hash) store.fromHash(location.hash);
  store.subscribe((_, changed) => {
    if (changed.size === 1 && changed.has("hover")) return;
    clearTimeout(pending);
    pending = setTimeout(() => {
      written = `#${store.toHash()}`;
      // A page inside an iframe's srcdoc has no URL of its own to write to.
      if (location.protocol !== "about:") history.replaceState(null, "", written);
    }, 120);
  });
  addEventListener("hashchange", () => location.hash !== written && store.fromHash(location.hash));
}
