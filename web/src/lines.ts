// The lines of a table that may be long: of more than some hundred, only those in view and some around them are in the
// document. Lines are alike in height, and columns keep the widths that they first came out with.

import { element, find } from "./format";

/** Lines up to which a table stands in the document whole. */
const WHOLE = 400;
/** Lines above and below those in view, so that a turn of the wheel meets no gap. */
const AROUND = 40;

export class Lines {
  private length = 0;
  private height = 0;
  private widths: number[] = [];
  /** Lines in the document, from the first to before the last. */
  private first = 0;
  private last = 0;
  private readonly table: HTMLTableElement;
  private readonly head: HTMLElement;
  private readonly body: HTMLElement;

  /** `list` scrolls and holds the table; `line` makes a line by its index. */
  constructor(
    private readonly list: HTMLElement,
    private readonly line: (index: number) => HTMLElement,
  ) {
    this.table = find("table", list);
    this.head = find("thead tr", list);
    this.body = find("tbody", list);
    list.addEventListener("scroll", () => requestAnimationFrame(() => this.follow()), { passive: true });
    window.addEventListener("resize", () => {
      if (this.isWhole()) return;
      this.loosen();
      this.show();
    });
  }

  /** Other lines, from the top. */
  begin(length: number): void {
    this.length = length;
    this.list.scrollTop = 0;
    this.table.ariaRowCount = String(length + 1);
    this.loosen();
  }

  show(): void {
    if (this.isWhole()) {
      this.body.replaceChildren(...Array.from({ length: this.length }, (_, index) => this.line(index)));
      return;
    }
    if (this.height === 0) {
      this.body.replaceChildren(this.line(0));
      this.height = this.body.getBoundingClientRect().height;
    }
    const [top, bottom] = this.inView();
    this.first = Math.max(0, top - AROUND);
    this.last = Math.min(this.length, bottom + AROUND);
    const focused = document.activeElement?.closest("tbody tr")?.ariaRowIndex;
    const lines = [];
    for (let index = this.first; index < this.last; index++) {
      const line = this.line(index);
      line.ariaRowIndex = String(index + 2); // the head is the first
      lines.push(line);
    }
    this.body.replaceChildren(this.gap(this.first), ...lines, this.gap(this.length - this.last));
    this.body.querySelector<HTMLElement>(`[aria-rowindex="${focused}"] button`)?.focus({ preventScroll: true });
    this.fixColumns();
  }

  /** Bring a line into view. */
  reveal(index: number): void {
    if (index < 0) return;
    if (!this.isWhole()) {
      const top = index * this.height;
      const room = this.list.clientHeight - 2 * this.height; // the head covers a line
      this.list.scrollTop = Math.min(Math.max(this.list.scrollTop, top - room), top);
      this.show();
    }
    this.body.querySelector(".current")?.scrollIntoView({ block: "nearest" });
  }

  private isWhole(): boolean {
    return this.length <= WHOLE;
  }

  /** The list has scrolled: other lines, where it has left those that are there. */
  private follow(): void {
    if (this.isWhole()) return;
    const [top, bottom] = this.inView();
    if (top < this.first || (bottom > this.last && this.last < this.length)) this.show();
  }

  /** The first line in view, and the one behind the last. */
  private inView(): [number, number] {
    const room = Math.ceil(this.list.clientHeight / this.height);
    const top = Math.max(0, Math.min(Math.floor(this.list.scrollTop / this.height), this.length - room));
    return [top, top + room];
  }

  /** What stands for so many lines that are not in the document. */
  private gap(lines: number): HTMLElement {
    const gap = element("tr", "gap");
    gap.ariaHidden = "true";
    gap.style.height = `${lines * this.height}px`;
    return gap;
  }

  /** Beside an open page, the columns' widths are those of the style sheet. */
  private fixColumns(): void {
    if (document.body.classList.contains("reading")) {
      this.loosen();
      return;
    }
    const heads = [...this.head.children] as HTMLElement[];
    if (this.widths.length === 0) this.widths = heads.map((head) => head.getBoundingClientRect().width);
    heads.forEach((head, column) => (head.style.width = `${this.widths[column]}px`));
    this.table.style.tableLayout = "fixed";
  }

  private loosen(): void {
    this.widths = [];
    this.table.style.tableLayout = "";
    for (const head of this.head.children) (head as HTMLElement).style.width = "";
  }
}
