// Images of the prompt in the text: each picture with its patches over it, painted by the rank of their flow.
//
// A patch is a token: pointing, pinning and marks are the ribbon's. Arrow keys move from patch to patch while a picture
// has the keyboard.

import type { PromptImage, TraceData } from "./data";
import { element, percent } from "./format";
import type { Store } from "./state";

const WIDEST = 440;
const HIGHEST = 300;
/** The picture as a whole, where a finer view stands beside it, is as much smaller. */
const COARSER = 0.6;

export interface PatchName {
  long: string;
  short: string;
}

interface View {
  image: PromptImage;
  /** Of its image, from 0 on; those behind the first show the picture as a whole. */
  depth: number;
  number: number;
  rows: number;
  columns: number;
  /** Row by row. */
  tokens: number[];
}

function viewsOf(data: TraceData): View[] {
  let at = 0;
  return data.images.flatMap((image, index) =>
    image.views.map(([rows, columns], depth) => {
      const tokens = Array.from(data.patchToken.subarray(at, at + rows * columns));
      at += rows * columns;
      return { image, depth, number: index + 1, rows, columns, tokens };
    }),
  );
}

/** What each patch is called. */
export function patchNames(data: TraceData): Map<number, PatchName> {
  const names = new Map<number, PatchName>();
  for (const view of viewsOf(data)) {
    view.tokens.forEach((token, place) => names.set(token, nameOf(view, place)));
  }
  return names;
}

function nameOf({ image, depth, number, columns }: View, place: number): PatchName {
  const name = `image ${number}${depth > 0 ? " as a whole" : ""}`;
  if (!image.placed) return { long: `${name}, patch ${place + 1}`, short: `${name} (${place + 1})` };
  const [row, column] = [Math.floor(place / columns) + 1, (place % columns) + 1];
  return { long: `${name}, row ${row}, column ${column}`, short: `${name} (${row}, ${column})` };
}

/** Patches by their flow, the largest first. */
export function rankedPatches(data: TraceData): number[] {
  return Array.from(data.patchToken).sort((a, b) => data.flow[b] - data.flow[a]);
}

export class ImageFigures {
  private readonly views: View[];

  constructor(
    private readonly store: Store,
    private readonly data: TraceData,
    private readonly levels: Uint8Array,
    /** Told of the element of every patch. */
    private readonly keep: (token: number, cell: HTMLElement) => void,
  ) {
    this.views = viewsOf(data);
  }

  /** The figure of an image, by its number from 1 on. */
  figure(number: number): HTMLElement {
    const views = this.views.filter((view) => view.number === number);
    const image = views[0].image;
    const least = this.data.complete ? "" : "at least ";
    const { rows, columns, tokens } = views[0];
    const laid = image.placed ? `${rows} \u00d7 ${columns} patches` : `${tokens.length} patches, in their order`;
    const caption = element(
      "span",
      "caption",
      {},
      `image ${number} \u00b7 ${laid} \u00b7 ${least}${percent(image.share)} of the flow leaves the prompt from it`,
    );
    const hide = element("button", "paint", { type: "button", ariaPressed: "true" }, "flow");
    const figure = element("span", "shown", {}, ...views.map((view) => this.view(view)), caption);
    hide.title = "Paint the flow over the picture";
    hide.addEventListener("click", () => {
      const painted = figure.classList.toggle("bare");
      hide.ariaPressed = String(!painted);
    });
    caption.append(hide);
    return figure;
  }

  private view(view: View): HTMLElement {
    const { image, depth, number, rows, columns, tokens } = view;
    const whole = depth > 0 ? " as a whole" : "";
    const picture = element("img", "", { alt: `image ${number}${whole}`, draggable: false });
    const patches = element(
      "span",
      "patches",
      { tabIndex: 0 },
      ...tokens.map((token, place) => this.cell(view, token, place)),
    );
    patches.role = "group";
    patches.ariaLabel = `patches of image ${number}${whole}, ${rows} rows of ${columns}; arrow keys move between them`;
    patches.addEventListener("keydown", (event) => this.move(event, view));
    patches.addEventListener("focus", () => this.enter(view));
    if (image.placed) patches.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
    const box = element("span", image.placed ? "view" : "view unplaced", {}, picture, patches);
    fit(picture, box, depth > 0 ? COARSER : 1);
    picture.src = image.picture;
    return box;
  }

  private cell(view: View, token: number, place: number): HTMLElement {
    const cell = element("i", this.levels[token] > 0 ? `p${this.levels[token]}` : "");
    cell.dataset.t = String(token);
    cell.role = "img";
    cell.ariaLabel = `${nameOf(view, place).long}: ${percent(this.data.flow[token])} of the flow`;
    this.keep(token, cell);
    return cell;
  }

  /** The keyboard comes to a picture: to the pinned patch, or to the one that carries most. */
  private enter({ tokens }: View): void {
    const { token } = this.store.state;
    if (token !== null && tokens.includes(token)) return;
    if (!document.activeElement?.matches(":focus-visible")) return; // a click pins what it is on
    this.pin(tokens.reduce((best, other) => (this.data.flow[other] > this.data.flow[best] ? other : best)));
  }

  private move(event: KeyboardEvent, { tokens, columns }: View): void {
    const place = this.store.state.token === null ? -1 : tokens.indexOf(this.store.state.token);
    if (place < 0 || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    const column = place % columns;
    const next = {
      ArrowLeft: column > 0 ? place - 1 : place,
      ArrowRight: column + 1 < columns ? place + 1 : place,
      ArrowUp: place - columns,
      ArrowDown: place + columns,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere arrows walk along the flow
    if (next >= 0 && next < tokens.length) this.pin(tokens[next]);
  }

  private pin(token: number): void {
    this.store.set({ token, path: null, hover: null });
    this.store.reveal(token);
  }
}

/** As large as there is room for, a small picture in plain squares. */
function fit(picture: HTMLImageElement, box: HTMLElement, part: number): void {
  picture.addEventListener("load", () => {
    const { naturalWidth: width, naturalHeight: height } = picture;
    const scale = part * Math.min(WIDEST / width, HIGHEST / height);
    box.style.inlineSize = `${Math.round(width * scale)}px`;
    if (scale > 3) picture.style.imageRendering = "pixelated";
  });
  picture.addEventListener("error", () => box.classList.add("missing"));
}
