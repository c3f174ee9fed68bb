// A picture as SVG, for a paper. Elements are made by the browser, so text is escaped by its own serializer.

import { CanvasPen, drawPicture, FAMILY, type Pen, type Picture } from "./draw";
import type { Frame } from "./scene";

const SVG = "http://www.w3.org/2000/svg";
const HEAD = 34;
/** What XML cannot hold, however it is written. */
const FORBIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu;

class SvgPen implements Pen {
  readonly group = make("g", { "clip-path": "url(#view)" });
  private readonly measure = new CanvasPen(document.createElement("canvas").getContext("2d")!);

  arcs(frame: Frame, ends: number[], colour: string, width: number, alpha: number): void {
    const path = [];
    for (let i = 0; i < ends.length; i += 2) {
      const x0 = frame.x(ends[i]);
      const x1 = frame.x(ends[i + 1]);
      path.push("M", x0, frame.base, "A", (x1 - x0) / 2, frame.rise(x0, x1), 0, 0, 1, x1, frame.base);
    }
    const d = path.map((part) => (typeof part === "number" ? short(part) : part)).join(" ");
    const stroke = { stroke: colour, "stroke-width": short(width), "stroke-opacity": alpha.toFixed(3) };
    this.group.append(make("path", { d, fill: "none", ...stroke }));
  }

  bar(x: number, y: number, width: number, height: number, fill: string): void {
    this.group.append(make("rect", { x: short(x), y: short(y), width: short(width), height: short(height), fill }));
  }

  label(text: string, x: number, y: number, fill: string, strong: boolean): void {
    const weight = strong ? { "font-weight": "600" } : {};
    this.group.append(make("text", { x: short(x), y: short(y), "text-anchor": "middle", fill, ...weight }, text));
  }

  widthOf(text: string, strong: boolean): number {
    return this.measure.widthOf(text, strong);
  }
}

/** The arc view under a line of text. */
export function pictureToSvg(picture: Picture, title: string, caption: string): string {
  const { width, height } = picture.frame;
  const pen = new SvgPen();
  drawPicture(pen, picture);
  const size = { width: short(width), height: short(height + HEAD), viewBox: `0 ${-HEAD} ${width} ${height + HEAD}` };
  const figure = make("svg", { ...size, "font-family": FAMILY, "font-size": "11" });
  // Arcs that leave the view end at its border.
  const border = make("clipPath", { id: "view" });
  border.append(make("rect", { width: short(width), height: short(height) }));
  figure.append(
    make("title", {}, title),
    make("rect", { y: short(-HEAD), width: "100%", height: "100%", fill: picture.palette.surface }),
    make("text", { x: "8", y: "-14", "font-size": "13", fill: picture.palette.ink }, caption),
    border,
    pen.group,
  );
  return new XMLSerializer().serializeToString(figure);
}

/** An element of a picture, made by the browser. */
export function make(name: string, attributes: Record<string, string>, text = ""): SVGElement {
  const made = document.createElementNS(SVG, name) as SVGElement;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text) made.textContent = text.replace(FORBIDDEN, "\ufffd");
  return made;
}

function short(value: number): string {
  return String(Math.round(value * 10) / 10);
}
