// The whole text at a glance: density of credit, sentence ticks, the bands of prompt, reasoning and answer, what was
// found, and a brush that is the arc view's window. Drag to brush, drag the brush to move it, double-click for all.
// Two canvases: the text below, brush and pointer above, so that pointing redraws next to nothing.

import { Surface } from "./canvas";
import type { TraceData } from "./data";
import { LABEL_FONT } from "./draw";
import { find } from "./format";
import type { Palette } from "./palette";
import type { Store } from "./state";

const FOOT = 7;
const HANDLE = 6;

type Drag =
  | { kind: "brush"; start: number }
  | { kind: "move"; shift: number; width: number }
  | { kind: "left" }
  | { kind: "right" };

export class Minimap {
  private readonly surface: Surface;
  private readonly over: Surface;
  private readonly box = find<HTMLElement>("#minimap");
  private found: readonly number[] = [];

  constructor(
    private readonly store: Store,
    private readonly data: TraceData,
    private palette: Palette,
  ) {
    this.surface = new Surface(find("#minimap-base"), (context, width, height) => this.draw(context, width, height));
    this.over = new Surface(find("#minimap-over"), (context, width, height) => this.drawBrush(context, width, height));
    store.subscribe(() => this.over.redraw());
    this.listen();
  }

  setPalette(palette: Palette): void {
    this.palette = palette;
    this.surface.redraw();
    this.over.redraw();
  }

  setFound(found: readonly number[]): void {
    this.found = found;
    this.surface.redraw();
  }

  private draw(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { data, palette } = this;
    const x = (position: number) => (position / data.length) * width;
    const floor = height - FOOT;
    const bands = [
      ["prompt", 0, data.response[0]],
      ["reasoning", data.response[0], data.answer[0]],
      ["answer", data.answer[0], data.answer[1]],
    ] as const;
    for (const [name, start, stop] of bands) {
      const wide = Math.max(2, x(stop) - x(start));
      context.globalAlpha = 0.1;
      context.fillStyle = palette[name];
      context.fillRect(x(start), 0, wide, floor);
      context.globalAlpha = 1;
      context.fillRect(x(start), floor, wide, 2);
    }
    this.drawDensity(context, width, floor);
    context.fillStyle = palette.muted;
    for (let step = 0; step < data.stepStart.length; step++) context.fillRect(x(data.stepStart[step]), floor + 3, 1, 4);
    context.fillStyle = palette.path;
    for (const token of this.found) context.fillRect(x(token), 0, Math.max(1.5, x(1)), 5);
    const images = data.images.map((_, index) => [`image ${index + 1}`, data.imageOf.indexOf(index + 1), 0] as const);
    this.drawBands(context, x, [bands[0], ...images, bands[1], bands[2]]);
  }

  /** Flow summed over each pixel column, on a square-root scale. */
  private drawDensity(context: CanvasRenderingContext2D, width: number, floor: number): void {
    const { data, palette } = this;
    const columns = Math.max(1, Math.min(Math.floor(width), data.length));
    const sums = new Float64Array(columns);
    for (let t = 0; t < data.answer[0]; t++) sums[Math.floor((t / data.length) * columns)] += data.flow[t];
    const largest = sums.reduce((a, b) => Math.max(a, b), 1e-30);
    const wide = width / columns;
    const border = (data.response[0] / data.length) * columns;
    for (let column = 0; column < columns; column++) {
      context.fillStyle = column < Math.floor(border) ? palette.prompt : palette.reasoning;
      const rise = Math.sqrt(sums[column] / largest) * (floor - 16);
      context.fillRect(column * wide, floor - rise, Math.max(0.75, wide - (wide > 3 ? 1 : 0)), rise);
    }
    context.fillStyle = palette.answer;
    const answer = (this.data.answer[0] / data.length) * width;
    context.fillRect(answer, 16, Math.max(2, (this.data.answer[1] / data.length) * width - answer), floor - 16);
  }

  private drawBands(
    context: CanvasRenderingContext2D,
    x: (position: number) => number,
    bands: readonly (readonly [string, number, number])[],
  ): void {
    context.font = LABEL_FONT;
    context.textBaseline = "alphabetic";
    context.fillStyle = this.palette.muted;
    let free = 0;
    for (const [name, start] of bands) {
      const wide = context.measureText(name).width;
      const left = Math.min(Math.max(x(start) + 4, free), this.surface.width - wide - 3);
      if (left >= free) {
        context.fillText(name, left, 11);
        free = left + wide + 8;
      }
    }
  }

  private drawBrush(context: CanvasRenderingContext2D, width: number, height: number): void {
    const { palette } = this;
    const x = (position: number) => (position / this.data.length) * width;
    const { from, to } = this.store.state;
    const focus = this.store.focus;
    if (focus !== null) {
      context.fillStyle = palette.ink;
      context.fillRect(x(focus + 0.5) - 0.75, 0, 1.5, height);
    }
    if (from <= 0 && to >= this.data.length) return;
    context.globalAlpha = 0.62;
    context.fillStyle = palette.page;
    context.fillRect(0, 0, x(from), height);
    context.fillRect(x(to), 0, width - x(to), height);
    context.globalAlpha = 1;
    context.strokeStyle = palette.ink;
    context.lineWidth = 1.25;
    context.strokeRect(Math.max(0.7, x(from)), 0.7, Math.min(width - 1.4, x(to) - x(from)), height - 1.4);
  }

  private listen(): void {
    const { box, store } = this;
    const place = (event: PointerEvent) =>
      ((event.clientX - box.getBoundingClientRect().left) / this.surface.width) * this.data.length;
    let drag: Drag | null = null;
    box.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      drag = this.dragAt(place(event));
      box.setPointerCapture(event.pointerId);
    });
    box.addEventListener("pointermove", (event) => {
      if (drag) this.dragTo(drag, place(event));
      else
        box.style.cursor = { brush: "crosshair", move: "grab", left: "ew-resize", right: "ew-resize" }[
          this.dragAt(place(event)).kind
        ];
    });
    box.addEventListener("pointerup", () => (drag = null));
    box.addEventListener("pointercancel", () => (drag = null));
    box.addEventListener("dblclick", () => store.view(0, this.data.length));
  }

  /** What a drag that starts here does. */
  private dragAt(token: number): Drag {
    const { from, to } = this.store.state;
    const whole = from <= 0 && to >= this.data.length;
    const near = (HANDLE / this.surface.width) * this.data.length;
    if (!whole && Math.abs(token - from) < near) return { kind: "left" };
    if (!whole && Math.abs(token - to) < near) return { kind: "right" };
    if (!whole && token > from && token < to) return { kind: "move", shift: token - from, width: to - from };
    return { kind: "brush", start: token };
  }

  private dragTo(drag: Drag, token: number): void {
    const { from, to } = this.store.state;
    if (drag.kind === "move") this.store.view(token - drag.shift, token - drag.shift + drag.width);
    else if (drag.kind === "left") this.store.view(Math.min(token, to - 8), to);
    else if (drag.kind === "right") this.store.view(from, Math.max(token, from + 8));
    else if (Math.abs(token - drag.start) > 2)
      this.store.view(Math.min(drag.start, token), Math.max(drag.start, token));
  }
}
