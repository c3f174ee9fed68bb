// Many traces: a table that sorts and filters. A row opens its page in place, in a frame that is read only then; the
// table shrinks to a list beside it.

import { unpack } from "./data";
import { count, element, find, percent } from "./format";
import { Lines } from "./lines";
import { applyTheme } from "./palette";
import { cut, shown } from "./text";

interface Row {
  page: string | null;
  name: string;
  verdict?: "right" | "wrong" | null;
  answer?: string;
  found?: string;
  reward?: number | null;
  tokens?: number;
  concentration?: number;
  hubs?: number;
  words?: string[];
  /** By what the trace was made, where that is not the default. */
  made?: string;
  /** Why there is no trace. Without a reason and without a page, the trace was not kept. */
  reason?: string;
  message?: string;
}

interface Column {
  key: string;
  title: string;
  note: string;
  /** What to sort by; missing values come last whichever way. */
  value: (row: Row) => number | string | undefined;
  cell: (row: Row) => Node | string;
}

const MARK = { right: "\u2713", wrong: "\u2717" };

const COLUMNS: Column[] = [
  {
    key: "verdict",
    title: "",
    note: "Right or wrong",
    value: (row) => row.verdict ?? undefined,
    cell: (row) =>
      row.verdict
        ? element(
            "span",
            `mark ${row.verdict}`,
            { title: row.verdict },
            MARK[row.verdict],
            element("span", "sr", {}, row.verdict),
          )
        : "",
  },
  { key: "name", title: "trace", note: "Id of the rollout", value: (row) => row.name, cell: (row) => row.name },
  {
    key: "answer",
    title: "answer",
    note: "The answer, or why there is no trace",
    value: (row) => row.answer,
    cell: (row) =>
      row.answer === undefined
        ? element("span", "none", { title: row.message ?? "" }, (row.reason ?? "").replaceAll("_", " "))
        : element("bdi", "", {}, shown(cut(row.answer, 40))),
  },
  {
    key: "found",
    title: "found by",
    note: "Rule that found the answer",
    value: (row) => row.found,
    cell: (row) => row.found ?? "",
  },
  {
    key: "made",
    title: "made by",
    note: "What the flow walks over, and what an edge weighs",
    value: (row) => row.made || undefined,
    cell: (row) => row.made ?? "",
  },
  number(
    "reward",
    "reward",
    "Reward",
    (row) => row.reward ?? undefined,
    (value) => String(Number(value.toFixed(3))),
  ),
  number("tokens", "tokens", "Length of prompt and response", (row) => row.tokens, count),
  number(
    "concentration",
    "concentration",
    "Share of the reasoning's flow on a tenth of its tokens",
    (row) => row.concentration,
    percent,
  ),
  number("hubs", "through hubs", "Share of the flow through the top hubs", (row) => row.hubs, percent),
  {
    key: "words",
    title: "hubs",
    note: "The top hubs",
    value: (row) => row.words?.join(" "),
    cell: (row) => element("span", "words", {}, ...(row.words ?? []).map((word) => element("bdi", "", {}, word))),
  },
];

function number(
  key: string,
  title: string,
  note: string,
  value: (row: Row) => number | undefined,
  format: (value: number) => string,
): Column {
  return { key, title, note, value, cell: (row) => (value(row) === undefined ? "" : format(value(row)!)) };
}

const FILTERS: Record<string, (row: Row) => boolean> = {
  all: () => true,
  right: (row) => row.verdict === "right",
  wrong: (row) => row.verdict === "wrong",
  ungraded: (row) => row.reason === undefined && !row.verdict,
  "no trace": (row) => row.reason !== undefined,
};

const inOrder = new Intl.Collator("en", { numeric: true }).compare;

class IndexPage {
  private sort = "";
  private falling = false;
  private filter = "all";
  private query = "";
  private open: string | null = null;
  private theme: "auto" | "light" | "dark" = "auto";
  private readonly head = find<HTMLElement>("thead tr");
  private readonly reader = find<HTMLElement>("#reader");
  private readonly columns: Column[];
  private readonly texts: Map<Row, string>;
  /** Rows that are asked for, in order. */
  private chosen: Row[] = [];
  private readonly lines = new Lines(find("#list"), (index) => this.line(this.chosen[index]));

  constructor(private readonly rows: Row[]) {
    this.texts = new Map(
      rows.map((row) => [row, [row.name, row.answer, row.reason, row.made].join("\n").toLowerCase()]),
    );
    this.columns = COLUMNS.filter((column) => rows.some((row) => column.value(row) !== undefined));
    this.readHash();
    this.addFilters();
    this.listen();
    this.arrange();
  }

  private visible(): Row[] {
    const query = this.query.toLowerCase();
    const rows = this.rows.filter((row) => FILTERS[this.filter](row) && this.texts.get(row)!.includes(query));
    const column = this.columns.find(({ key }) => key === this.sort);
    if (!column) return rows;
    const sign = this.falling ? -1 : 1;
    const valued = rows.map((row) => ({ row, value: column.value(row) }));
    valued.sort(({ value: x }, { value: y }) => {
      if (x === undefined || y === undefined) return Number(x === undefined) - Number(y === undefined);
      return sign * (typeof x === "number" ? x - (y as number) : inOrder(x, y as string));
    });
    return valued.map(({ row }) => row);
  }

  /** After what is asked for has changed: from the top. */
  private arrange(): void {
    this.chosen = this.visible();
    this.lines.begin(this.chosen.length);
    this.show();
  }

  private show(): void {
    document.body.classList.toggle("reading", this.open !== null); // which says how wide columns are
    this.showHead();
    this.lines.show();
    const { length } = this.chosen;
    find("#shown").textContent =
      length === this.rows.length
        ? `${count(length)} rollouts`
        : `${count(length)} of ${count(this.rows.length)} rollouts`;
    for (const button of document.querySelectorAll<HTMLElement>("#filters button")) {
      button.ariaPressed = String(button.dataset.filter === this.filter);
    }
    this.showReader();
    if (location.protocol !== "about:") history.replaceState(null, "", `#${this.toHash()}`);
  }

  private showHead(): void {
    this.head.replaceChildren(
      ...this.columns.map((column) => {
        const sorted = column.key === this.sort;
        const arrow = sorted ? (this.falling ? " \u2193" : " \u2191") : "";
        const button = element(
          "button",
          "",
          { type: "button", title: `${column.note}; click to sort` },
          (column.title || "\u2713\u2717") + arrow,
        );
        button.dataset.sort = column.key;
        button.addEventListener("click", () => {
          this.falling = sorted ? !this.falling : column.key !== "name";
          this.sort = column.key;
          this.arrange();
          find<HTMLElement>(`[data-sort="${column.key}"]`).focus();
        });
        const cell = element("th", `col-${column.key}`, { scope: "col" }, button);
        if (sorted) cell.ariaSort = this.falling ? "descending" : "ascending";
        return cell;
      }),
    );
  }

  private line(row: Row): HTMLElement {
    const line = element("tr", row.page === null ? "missing" : row.page === this.open ? "current" : "");
    for (const column of this.columns) {
      const cell = element("td", `col-${column.key}`);
      if (column.key === "name" && row.page !== null) {
        cell.append(element("button", "open", { type: "button" }, column.cell(row)));
      } else {
        cell.append(column.cell(row));
      }
      line.append(cell);
    }
    if (row.page !== null) line.addEventListener("click", () => this.choose(row.page));
    return line;
  }

  private choose(page: string | null): void {
    this.open = page;
    this.show();
  }

  /** A fresh frame for each page, so that going from one to the next leaves no history behind. */
  private showReader(): void {
    const shownPage = this.reader.dataset.page ?? "";
    this.reader.hidden = this.open === null;
    find<HTMLElement>("#close").hidden = this.open === null;
    if (this.open === shownPage || (this.open === null && shownPage === "")) return;
    this.reader.dataset.page = this.open ?? "";
    const theme = this.theme === "auto" ? "" : `#theme=${this.theme}`;
    this.reader.replaceChildren(
      ...(this.open === null
        ? []
        : [
            element("iframe", "", {
              src: this.open.split("/").map(encodeURIComponent).join("/") + theme,
              title: "The trace",
            }),
          ]),
    );
    this.lines.reveal(this.chosen.findIndex((row) => row.page !== null && row.page === this.open));
  }

  private addFilters(): void {
    const used = Object.keys(FILTERS).filter((name) => name === "all" || this.rows.some(FILTERS[name]));
    if (used.length < 3) return;
    find("#filters").append(
      ...used.map((name) => {
        const button = element(
          "button",
          "",
          { type: "button" },
          `${name} ${count(this.rows.filter(FILTERS[name]).length)}`,
        );
        button.dataset.filter = name;
        button.addEventListener("click", () => {
          this.filter = name;
          this.arrange();
        });
        return button;
      }),
    );
  }

  private step(by: number): void {
    const pages = this.chosen.flatMap((row) => (row.page === null ? [] : [row.page]));
    const at = this.open === null ? -1 : pages.indexOf(this.open);
    const next = pages[at < 0 ? 0 : Math.min(Math.max(at + by, 0), pages.length - 1)];
    if (next) this.choose(next);
  }

  private listen(): void {
    const input = find<HTMLInputElement>("#find");
    input.value = this.query;
    input.addEventListener("input", () => {
      this.query = input.value;
      this.arrange();
    });
    find("#close").addEventListener("click", () => this.choose(null));
    find("#theme").addEventListener("click", () => {
      this.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      applyTheme(this.theme);
      delete this.reader.dataset.page;
      this.show();
    });
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") {
        input.blur();
        this.choose(null);
      } else if (event.target !== input && event.key === "/") {
        event.preventDefault();
        input.focus();
      } else if (event.target !== input && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
        event.preventDefault();
        this.step(event.key === "ArrowDown" ? 1 : -1);
      }
    });
  }

  private toHash(): string {
    const state: Record<string, string> = {
      ...(this.sort ? { sort: this.sort, falling: this.falling ? "1" : "0" } : {}),
      ...(this.filter === "all" ? {} : { show: this.filter }),
      ...(this.query ? { q: this.query } : {}),
      ...(this.theme === "auto" ? {} : { theme: this.theme }),
      ...(this.open === null ? {} : { open: this.open }),
    };
    return new URLSearchParams(state).toString();
  }

  /** Only what names something of this page is taken over: a link cannot point the frame elsewhere. */
  private readHash(): void {
    const given = new URLSearchParams(location.hash.slice(1));
    const [sort, filter, open, theme] = ["sort", "show", "open", "theme"].map((name) => given.get(name) ?? "");
    if (this.columns.some((column) => column.key === sort)) this.sort = sort;
    this.falling = given.get("falling") === "1";
    if (Object.hasOwn(FILTERS, filter)) this.filter = filter;
    if (this.rows.some((row) => row.page !== null && row.page === open)) this.open = open;
    if (theme === "light" || theme === "dark") this.theme = theme;
    this.query = given.get("q") ?? "";
    applyTheme(this.theme);
  }
}

export async function openIndexPage(): Promise<void> {
  const { header } = await unpack(find("#index-data").textContent ?? "");
  new IndexPage(header.rows as Row[]);
}
