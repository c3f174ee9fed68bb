// Numbers as people read them, and small DOM helpers. Text enters the page through `textContent` only.

export function percent(share: number): string {
  const value = share * 100;
  if (value === 0) return "0 %";
  if (value < 0.01) return "< 0.01 %";
  return `${value < 1 ? value.toFixed(2) : value < 10 ? value.toFixed(1) : value.toFixed(0)} %`;
}

/** A number with its sign, short. */
export function signed(value: number): string {
  const text = Math.abs(value).toPrecision(3);
  return value > 0 ? `+${text}` : value < 0 ? `\u2212${text}` : "0";
}

export function count(value: number): string {
  return value.toLocaleString("en");
}

type Child = Node | string | null;

/** An element with a class, properties and children. */
export function element<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = "",
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const made = Object.assign(document.createElement(tag), properties);
  if (className) made.className = className;
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function find<T extends Element>(selector: string, within: ParentNode = document): T {
  const found = within.querySelector<T>(selector);
  if (!found) throw new Error(`the page lacks ${selector}`);
  return found;
}
