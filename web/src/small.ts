// A trace as a small picture that stands still, on a token scale that it may share with others.

import { Surface } from "./canvas";
import { creditLevels } from "./credit";
import { unpackTrace, type TraceData } from "./data";
import { CanvasPen, drawPicture } from "./draw";
import { element, find } from "./format";
import { Graph } from "./graph";
import { applyTheme, readPalette } from "./palette";
import { composeScene, Frame } from "./scene";
import { TokenText } from "./text";

export interface SmallTrace {
  data: TraceData;
  graph: Graph;
  text: TokenText;
  levels: Uint8Array;
}

/** The traces that the page holds, still packed. */
export function packedTraces(): string[] {
  return [...document.querySelectorAll(".trace-data")].map((script) => script.textContent ?? "");
}

export async function readTrace(packed: string): Promise<SmallTrace> {
  const data = await unpackTrace(packed);
  return { data, graph: new Graph(data), text: new TokenText(data), levels: creditLevels(data) };
}

/** A box with the arcs of a trace over tokens `0..length`; a line marks where it parts from the others. */
export function smallPicture(
  trace: SmallTrace,
  length: number,
  parting: number | null,
  repaints: (() => void)[],
): HTMLElement {
  const canvas = element("canvas");
  const box = element("div", "small-arcs", {}, canvas);
  const surface = new Surface(canvas, (context, width, height) => {
    const frame = new Frame(width, height, 0, length);
    const palette = readPalette();
    if (parting !== null) {
      const at = frame.x(parting) - frame.tokenWidth / 2;
      context.fillStyle = palette.muted;
      context.globalAlpha = 0.07;
      context.fillRect(0, 0, at, frame.base);
      context.globalAlpha = 1;
      context.fillStyle = palette.path;
      context.fillRect(at - 0.75, 0, 1.5, frame.base + 4);
    }
    const scene = composeScene(trace.graph, trace.text, 0, length, trace.data.edgeFlow.length);
    drawPicture(new CanvasPen(context), { data: trace.data, levels: trace.levels, scene, frame, palette });
  });
  repaints.push(() => surface.redraw());
  return box;
}

/** The answer with its mark, and what else tells the trace from others. */
export function nameOf({ data }: SmallTrace, name: string): HTMLElement {
  const mark = data.verdict === null ? "" : { right: "\u2713", wrong: "\u2717" }[data.verdict];
  return element(
    "p",
    "named",
    {},
    element("b", "", {}, name),
    element("bdi", "final", {}, data.answer_text.slice(0, 60)),
    element("span", `mark ${data.verdict ?? ""}`, { title: data.verdict ?? "" }, mark),
    element("small", "", {}, `${data.length.toLocaleString("en")} tokens`),
  );
}

/** The button for light and dark; canvases have to be told. */
export function connectTheme(repaints: (() => void)[]): void {
  const repaint = () => repaints.forEach((paint) => paint());
  find("#theme").addEventListener("click", () => {
    applyTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    repaint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    applyTheme("auto");
    repaint();
  });
}
