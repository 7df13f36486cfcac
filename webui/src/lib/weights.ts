// A1111's Ctrl+Up / Ctrl+Down: the attention weight of the selected words, `(words:1.1)`.

export interface Edit {
  text: string;
  start: number;
  end: number;
}

const WEIGHTED = /^\((.*):([0-9]*\.?[0-9]+)\)$/s;

function wordAround(text: string, at: number): [number, number] {
  const isWord = (c: string | undefined) => c !== undefined && /[^\s,()[\]:]/.test(c);
  let start = at;
  let end = at;
  while (isWord(text[start - 1])) start--;
  while (isWord(text[end])) end++;
  return [start, end];
}

/** The enclosing `( ... :w)` when the selection already stands inside one, else the selection or the word at it. */
function target(text: string, start: number, end: number): [number, number] {
  const open = text.lastIndexOf('(', start);
  const close = text.indexOf(')', Math.max(end - 1, start));
  if (
    open >= 0 &&
    close >= 0 &&
    WEIGHTED.test(text.slice(open, close + 1)) &&
    !text.slice(open + 1, close).includes('(')
  )
    return [open, close + 1];
  return start === end ? wordAround(text, start) : [start, end];
}

export function adjustWeight(text: string, start: number, end: number, delta: number): Edit {
  const [from, to] = target(text, start, end);
  const part = text.slice(from, to);
  if (!part.trim()) return { text, start, end };
  const match = WEIGHTED.exec(part);
  const words = match?.[1] ?? part;
  const weight = Math.min(2, Math.max(0.1, Number(match?.[2] ?? 1) + delta));
  const rounded = Math.round(weight * 100) / 100;
  const out = rounded === 1 ? words : `(${words}:${rounded})`;
  const offset = rounded === 1 ? 0 : 1;
  return { text: text.slice(0, from) + out + text.slice(to), start: from + offset, end: from + offset + words.length };
}
