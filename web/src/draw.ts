// A scene drawn with a pen: on a canvas here, into SVG in svg.ts. One drawing, two pens, the same picture.

import { regionOf } from "./credit";
import type { TraceData } from "./data";
import type { Palette } from "./palette";
import { creditBars, Frame, placeMarks, type Scene } from "./scene";

export const FAMILY =
  'Inter, -apple-system, BlinkMacSystemFont, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif';
export const LABEL_FONT = `11px ${FAMILY}`;
const STRONG_FONT = `600 ${LABEL_FONT}`;
const STRIP = 3;
const BARS = 20;
export const LABEL_ROW = 14;

export interface Picture {
  data: TraceData;
  levels: Uint8Array;
  scene: Scene;
  frame: Frame;
  palette: Palette;
}

export interface Pen {
  /** Arcs over the axis between pairs of token positions, in one stroke. */
  arcs(frame: Frame, ends: number[], colour: string, width: number, alpha: number): void;
  bar(x: number, y: number, width: number, height: number, colour: string): void;
  /** Text centred at a place on its base line. */
  label(text: string, x: number, y: number, colour: string, strong: boolean): void;
  widthOf(text: string, strong: boolean): number;
}

export class CanvasPen implements Pen {
  constructor(private readonly context: CanvasRenderingContext2D) {}

  arcs(frame: Frame, ends: number[], colour: string, width: number, alpha: number): void {
    const { context } = this;
    context.globalAlpha = alpha;
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    for (let i = 0; i < ends.length; i += 2) {
      const x0 = frame.x(ends[i]);
      const x1 = frame.x(ends[i + 1]);
      context.moveTo(x0, frame.base);
      context.ellipse((x0 + x1) / 2, frame.base, (x1 - x0) / 2, frame.rise(x0, x1), 0, Math.PI, 2 * Math.PI);
    }
    context.stroke();
    context.globalAlpha = 1;
  }

  bar(x: number, y: number, width: number, height: number, colour: string): void {
    this.context.fillStyle = colour;
    this.context.fillRect(x, y, width, height);
  }

  label(text: string, x: number, y: number, colour: string, strong: boolean): void {
    const { context } = this;
    context.font = strong ? STRONG_FONT : LABEL_FONT;
    context.textAlign = "center";
    context.textBaseline = "alphabetic";
    context.fillStyle = colour;
    context.fillText(text, x, y);
    context.textAlign = "start";
  }

  dot(x: number, y: number, radius: number, colour: string): void {
    this.context.fillStyle = colour;
    this.context.beginPath();
    this.context.arc(x, y, radius, 0, 2 * Math.PI);
    this.context.fill();
  }

  widthOf(text: string, strong: boolean): number {
    this.context.font = strong ? STRONG_FONT : LABEL_FONT;
    return this.context.measureText(text).width;
  }
}

export function drawPicture(pen: Pen, picture: Picture): void {
  const { frame, palette, scene } = picture;
  for (const { ink, width, alpha, ends } of scene.groups) pen.arcs(frame, ends, palette[ink], width, alpha);
  for (const [ink, left, right] of regions(picture)) pen.bar(left, frame.base, right - left, STRIP, palette[ink]);
  for (const { token, x, width, height, level } of creditBars(picture.data, picture.levels, frame)) {
    pen.bar(x, frame.base + STRIP + 1, width, Math.max(1, height * BARS), barColour(token, level, picture));
  }
  drawMarks(pen, picture.scene.marks, frame, palette);
}

export function drawMarks(pen: Pen, marks: Scene["marks"], frame: Frame, palette: Palette): void {
  for (const { mark, x, row } of placeMarks(marks, frame, (text, strong) => pen.widthOf(text, strong))) {
    pen.label(mark.text, x, labelLine(frame, row), mark.strong ? palette.ink : palette.muted, mark.strong);
  }
}

function barColour(token: number, level: number, { data, palette }: Picture): string {
  const region = regionOf(data, token);
  const grey = region === "prompt" && !(data.imageOf[token] > 0);
  return region === "answer" ? palette.answer : (grey ? palette.promptLevel : palette.level)[level];
}

/** Where the text of a row of labels stands. */
export function labelLine(frame: Frame, row: number): number {
  return frame.base + STRIP + BARS + 16 + row * LABEL_ROW;
}

function regions({ data, frame }: Picture): ["prompt" | "reasoning" | "answer", number, number][] {
  const half = frame.tokenWidth / 2;
  const clip = (token: number) => Math.min(Math.max(frame.x(token) - half, 0), frame.width);
  const bands: ["prompt" | "reasoning" | "answer", number, number][] = [
    ["prompt", clip(0), clip(data.response[0])],
    ["reasoning", clip(data.response[0]), clip(data.answer[0])],
    ["answer", clip(data.answer[0]), Math.max(clip(data.answer[1]), clip(data.answer[0]) + 2)],
  ];
  return bands.filter(([, left, right]) => right > left && left < frame.width);
}
