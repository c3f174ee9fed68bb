// The picture as SVG or PNG, the numbers as JSON: made here, offered as a download.

import type { TraceData } from "./data";
import { CanvasPen, drawPicture, FAMILY, type Picture } from "./draw";
import { pictureToSvg } from "./svg";
import { shown, type TokenText } from "./text";

const FIGURE = { width: 1200, height: 360 };
const CAPTION_HEIGHT = 34;
const PIXELS = 2;

type Compose = (width: number, height: number) => Picture;

export function svgFigure(compose: Compose, data: TraceData): string {
  return pictureToSvg(compose(FIGURE.width, FIGURE.height), summaryOf(data), caption(data));
}

export async function pngFigure(compose: Compose, data: TraceData): Promise<Blob> {
  const picture = compose(FIGURE.width, FIGURE.height);
  const canvas = document.createElement("canvas");
  canvas.width = FIGURE.width * PIXELS;
  canvas.height = (FIGURE.height + CAPTION_HEIGHT) * PIXELS;
  const context = canvas.getContext("2d")!;
  context.scale(PIXELS, PIXELS);
  context.fillStyle = picture.palette.surface;
  context.fillRect(0, 0, FIGURE.width, FIGURE.height + CAPTION_HEIGHT);
  context.font = `13px ${FAMILY}`;
  context.fillStyle = picture.palette.ink;
  context.fillText(caption(data), 8, 20, FIGURE.width - 16);
  context.translate(0, CAPTION_HEIGHT);
  drawPicture(new CanvasPen(context), picture);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the browser made no PNG"))), "image/png"),
  );
}

/** Every number of the page, in plain JSON. */
export function jsonExport(data: TraceData, text: TokenText): string {
  const plain = { ...data, tokens: Array.from(data.flow, (_, token) => text.raw(token)) };
  return JSON.stringify(plain, (_, value) => (ArrayBuffer.isView(value) ? Array.from(value as Float32Array) : value));
}

export function download(name: string, content: Blob | string, type = "application/octet-stream"): void {
  const url = URL.createObjectURL(typeof content === "string" ? new Blob([content], { type }) : content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A file name for a trace, from its id. */
export function stem(data: TraceData): string {
  const id = String(data.metadata.id ?? "")
    .replace(/[^A-Za-z0-9_-]+/g, "-")
    .slice(0, 60);
  return `flowtracer-${id || "trace"}`;
}

function summaryOf(data: TraceData): string {
  return shown(data.summary).replaceAll("\n", " ");
}

/** The summary cut to the line above the picture. */
function caption(data: TraceData): string {
  const text = summaryOf(data);
  return text.length > 170 ? `${text.slice(0, 169)}\u2026` : text;
}
