// A scene onto a canvas, or into SVG.

import { regionOf } from "./credit";
import type { TraceData } from "./data";
import type { Palette } from "./palette";
import { creditBars, Frame, placeMarks, type Scene } from "./scene";

const FAMILY =
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

export function measurer(context: CanvasRenderingContext2D): (text: string, strong: boolean) => number {
  return (text, strong) => {
    context.font = strong ? STRONG_FONT : LABEL_FONT;
    return context.measureText(text).width;
  };
}

export function drawPicture(context: CanvasRenderingContext2D, picture: Picture): void {
  const { frame, palette, scene } = picture;
  for (const group of scene.groups) {
    context.globalAlpha = group.alpha;
    context.strokeStyle = palette[group.ink];
    context.lineWidth = group.width;
    strokeArcs(context, frame, group.ends);
  }
  context.globalAlpha = 1;
  drawFoot(context, picture);
}

/** One stroke for many arcs. */
export function strokeArcs(context: CanvasRenderingContext2D, frame: Frame, ends: number[]): void {
  context.beginPath();
  for (let i = 0; i < ends.length; i += 2) {
    const x0 = frame.x(ends[i]);
    const x1 = frame.x(ends[i + 1]);
    context.moveTo(x0, frame.base);
    context.ellipse((x0 + x1) / 2, frame.base, (x1 - x0) / 2, frame.rise(x0, x1), 0, Math.PI, 2 * Math.PI);
  }
  context.stroke();
}

function drawFoot(context: CanvasRenderingContext2D, picture: Picture): void {
  const { frame, palette } = picture;
  for (const [ink, left, right] of regions(picture)) {
    context.fillStyle = palette[ink];
    context.fillRect(left, frame.base, right - left, STRIP);
  }
  for (const bar of creditBars(picture.data, picture.levels, frame)) {
    context.fillStyle = barColour(bar.token, bar.level, picture);
    context.fillRect(bar.x, frame.base + STRIP + 1, bar.width, Math.max(1, bar.height * BARS));
  }
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  for (const { mark, x, row } of placeMarks(picture.scene.marks, frame, measurer(context))) {
    context.font = mark.strong ? STRONG_FONT : LABEL_FONT;
    context.fillStyle = mark.strong ? palette.ink : palette.muted;
    context.fillText(mark.text, x, labelLine(frame, row));
  }
}

function barColour(token: number, level: number, { data, palette }: Picture): string {
  const region = regionOf(data, token);
  return region === "answer" ? palette.answer : (region === "prompt" ? palette.promptLevel : palette.level)[level];
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

/** A figure for a paper: the arc view under a line of text. */
export function pictureToSvg(picture: Picture, caption: string, context: CanvasRenderingContext2D): string {
  const { frame, palette, scene } = picture;
  const top = 34;
  const parts: string[] = [];
  const fixed = (value: number) => value.toFixed(1);
  for (const group of scene.groups) {
    const path = [];
    for (let i = 0; i < group.ends.length; i += 2) {
      const x0 = frame.x(group.ends[i]);
      const x1 = frame.x(group.ends[i + 1]);
      path.push(
        `M${fixed(x0)} ${fixed(frame.base)}A${fixed((x1 - x0) / 2)} ${fixed(frame.rise(x0, x1))} 0 0 1 ${fixed(x1)} ${fixed(frame.base)}`,
      );
    }
    parts.push(
      `<path d="${path.join("")}" fill="none" stroke="${palette[group.ink]}" stroke-width="${fixed(group.width)}" stroke-opacity="${group.alpha.toFixed(3)}"/>`,
    );
  }
  for (const [ink, left, right] of regions(picture)) {
    parts.push(rectangle(left, frame.base, right - left, STRIP, palette[ink]));
  }
  for (const bar of creditBars(picture.data, picture.levels, frame)) {
    const height = Math.max(1, bar.height * BARS);
    parts.push(rectangle(bar.x, frame.base + STRIP + 1, bar.width, height, barColour(bar.token, bar.level, picture)));
  }
  for (const { mark, x, row } of placeMarks(scene.marks, frame, measurer(context))) {
    const weight = mark.strong ? ' font-weight="600"' : "";
    const colour = mark.strong ? palette.ink : palette.muted;
    parts.push(
      `<text x="${fixed(x)}" y="${fixed(labelLine(frame, row))}" text-anchor="middle" fill="${colour}"${weight}>${escapeXml(mark.text)}</text>`,
    );
  }
  const { width, height } = frame;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height + top}" viewBox="0 ${-top} ${width} ${height + top}" ` +
    `font-family="${escapeXml(FAMILY)}" font-size="11">` +
    `<title>${escapeXml(caption)}</title>${rectangle(0, -top, width, height + top, palette.surface)}` +
    `<text x="8" y="-14" font-size="13" fill="${palette.ink}">${escapeXml(caption)}</text>` +
    // Arcs that leave the view end at its border.
    `<clipPath id="view"><rect width="${width}" height="${height}"/></clipPath><g clip-path="url(#view)">${parts.join("")}</g></svg>`
  );
}

function rectangle(x: number, y: number, width: number, height: number, fill: string): string {
  return `<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${height.toFixed(1)}" fill="${fill}"/>`;
}

/** Text for XML: markup escaped, and nothing that XML forbids. */
export function escapeXml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text
    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd")
    .replace(/[&<>"']/g, (char) => entities[char]);
}
