// The arc view: two canvases, one for the graph and one for what is pointed at, so that hovering redraws few arcs only.
// Drag pans, the wheel zooms around the pointer, a double click zooms in, a click pins.

import { Surface } from "./canvas";
import type { Path, TraceData } from "./data";
import { CanvasPen, drawMarks, drawPicture, LABEL_ROW, labelLine, type Picture } from "./draw";
import { count, find } from "./format";
import type { Graph } from "./graph";
import type { Palette } from "./palette";
import { composeScene, Frame, type Mark } from "./scene";
import type { Store } from "./state";
import { shown, type TokenText } from "./text";

/** How many of a token's strongest neighbours are shown on either side. */
export const NEIGHBOURS = 12;
const DRAG_STARTS = 4;

export class ArcView {
  private readonly base: Surface;
  private readonly over: Surface;
  private readonly box = find<HTMLElement>("#arcs");
  private readonly note = find<HTMLElement>("#arcs-note");
  private picture: Picture | null = null;

  constructor(
    private readonly store: Store,
    private readonly graph: Graph,
    private readonly text: TokenText,
    private readonly levels: Uint8Array,
    private palette: Palette,
    private edges: number,
  ) {
    this.base = new Surface(find("#arcs-base"), (context, width, height) => this.drawBase(context, width, height));
    this.over = new Surface(find("#arcs-over"), (context, width, height) => this.drawOver(context, width, height));
    store.subscribe((_, changed) => {
      if (changed.has("from") || changed.has("to")) this.base.redraw();
      this.over.redraw();
    });
    this.listen();
  }

  setEdges(edges: number): void {
    this.edges = edges;
    this.base.redraw();
  }

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.base.redraw();
    this.over.redraw();
  }

  /** The same picture at another size, for export. */
  compose(width: number, height: number): Picture {
    const { from, to } = this.store.state;
    return {
      data: this.graph.data,
      levels: this.levels,
      scene: composeScene(this.graph, this.text, from, to, this.edges),
      frame: new Frame(width, height, from, to),
      palette: this.palette,
    };
  }

  private drawBase(context: CanvasRenderingContext2D, width: number, height: number): void {
    this.picture = this.compose(width, height);
    drawPicture(new CanvasPen(context), this.picture);
    const { mode, drawn } = this.picture.scene;
    const view = Math.round(this.store.state.to - this.store.state.from);
    this.note.textContent =
      mode === "sentences"
        ? `${count(view)} tokens, ${count(drawn)} sentence arcs \u00b7 zoom in for tokens`
        : `${count(view)} tokens, ${count(drawn)} arcs in view`;
  }

  private frame(width: number, height: number): Frame {
    return new Frame(width, height, this.store.state.from, this.store.state.to);
  }

  private drawOver(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { data } = this.graph;
    const frame = this.frame(width, height);
    const pen = new CanvasPen(context);
    const { path } = this.store.state;
    const focus = this.store.focus;
    this.box.classList.toggle("focused", focus !== null || path !== null);
    const marks: Mark[] = [];
    if (path !== null && this.store.state.hover === null) this.drawPath(pen, frame, data.paths[path], marks);
    if (focus !== null) this.drawNeighbours(pen, frame, focus, marks);
    this.relabel(pen, frame, marks);
  }

  private drawNeighbours(pen: CanvasPen, frame: Frame, token: number, marks: Mark[]): void {
    const { data } = this.graph;
    const chosen = [
      ...this.graph.into(token).subarray(0, NEIGHBOURS),
      ...this.graph.outOf(token).subarray(0, NEIGHBOURS),
    ];
    const largest = Math.max(...chosen.map((edge) => data.edgeFlow[edge]));
    for (const edge of chosen.reverse()) {
      const [source, target] = [data.edgeSource[edge], data.edgeTarget[edge]];
      const strength = Math.sqrt(data.edgeFlow[edge] / largest);
      const colour = target === token ? this.palette.reasoning : this.palette.answer;
      pen.arcs(frame, [source, target], colour, 0.8 + 3 * strength, 0.35 + 0.6 * strength);
      const other = target === token ? source : target;
      marks.push({ token: other, text: this.text.label(other), weight: data.edgeFlow[edge], strong: false });
    }
    pen.dot(frame.x(token), frame.base, 4, this.palette.ink);
    marks.push({ token, text: this.text.label(token), weight: 1e9, strong: true });
  }

  private drawPath(pen: CanvasPen, frame: Frame, { tokens, units }: Path, marks: Mark[]): void {
    const ends = tokens.slice(1).flatMap((token, i) => [tokens[i], token]);
    pen.arcs(frame, ends, this.palette.path, 2.5, 1);
    tokens.forEach((token, i) => {
      pen.dot(frame.x(token), frame.base, 3.5, this.palette.path);
      marks.push({ token, text: shown(units[i].label), weight: 1e6, strong: true });
    });
  }

  /** Labels of what is shown over the picture replace the picture's own. */
  private relabel(pen: CanvasPen, frame: Frame, marks: Mark[]): void {
    if (marks.length === 0) return;
    const inView = marks.filter((mark) => mark.token >= frame.from && mark.token < frame.to);
    pen.bar(0, labelLine(frame, 0) - 12, frame.width, 2 * LABEL_ROW + 6, this.palette.surface);
    drawMarks(pen, inView, frame, this.palette);
  }

  /** The token under the pointer; where several share a pixel, the one that carries most. */
  private tokenUnder(event: MouseEvent): number | null {
    const { data } = this.graph;
    const frame = this.frame(this.base.width, this.base.height);
    const x = event.clientX - this.box.getBoundingClientRect().left;
    return strongest(data, frame.tokenAt(x - 2), frame.tokenAt(x + 2), frame.tokenAt(x));
  }

  private listen(): void {
    const { box, store } = this;
    let drag: { x: number; from: number; to: number; moved: boolean } | null = null;
    box.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = { x: event.clientX, from: store.state.from, to: store.state.to, moved: false };
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      if (!drag) {
        store.set({ hover: this.tokenUnder(event) });
        return;
      }
      const shift = event.clientX - drag.x;
      drag.moved ||= Math.abs(shift) > DRAG_STARTS;
      if (drag.moved) {
        const tokens = (shift / this.base.width) * (drag.to - drag.from);
        store.view(drag.from - tokens, drag.to - tokens);
      }
    });
    box.addEventListener("pointerup", (event) => {
      if (drag && !drag.moved) {
        const below = event.offsetY > this.base.height;
        store.set({ token: below ? null : this.tokenUnder(event), path: null });
      }
      drag = null;
    });
    box.addEventListener("pointercancel", () => (drag = null));
    box.addEventListener("pointerleave", () => store.set({ hover: null }));
    box.addEventListener("dblclick", (event) => this.zoom(0.4, event.clientX));
    box.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
          this.pan(((event.deltaX || event.deltaY) / this.base.width) * 1.5);
        } else {
          this.zoom(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.006), event.clientX);
        }
      },
      { passive: false },
    );
  }

  /** Shift the view by a part of its width. */
  pan(part: number): void {
    const { from, to } = this.store.state;
    const shift = part * (to - from);
    this.store.view(from + shift, to + shift);
  }

  /** Zoom by a factor around a place on the screen, or around the pinned token. */
  zoom(factor: number, clientX?: number): void {
    const { from, to, token } = this.store.state;
    const box = this.box.getBoundingClientRect();
    const pinned = token !== null && token >= from && token < to ? (token - from) / (to - from) : 0.5;
    const at = clientX === undefined ? pinned : (clientX - box.left) / box.width;
    const centre = from + at * (to - from);
    const width = Math.max(8, (to - from) * factor);
    this.store.view(centre - at * width, centre + (1 - at) * width);
  }
}

/** Of the tokens from `first` to `last` the one of largest flow; `nearest` where none carries any. */
function strongest(data: TraceData, first: number, last: number, nearest: number): number | null {
  let best = nearest >= 0 && nearest < data.length ? nearest : -1;
  for (let token = Math.max(0, first); token <= Math.min(last, data.length - 1); token++) {
    if (best < 0 || data.flow[token] > data.flow[best]) best = token;
  }
  return best < 0 ? null : best;
}
