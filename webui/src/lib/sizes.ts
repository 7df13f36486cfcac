// Sizes that suit a model: shapes and resolutions, in terms of the size that it was trained on.

/** The pictures that a model was trained on, in pixels. */
export interface Native {
  width: number;
  height: number;
}

export const SHAPES: [name: string, width: number, height: number][] = [
  ['1:1', 1, 1],
  ['4:3', 4, 3],
  ['3:4', 3, 4],
  ['3:2', 3, 2],
  ['2:3', 2, 3],
  ['16:9', 16, 9],
  ['9:16', 9, 16],
];
/** Sides of a square picture, as multiples of the model's own. */
export const SCALES: [name: string, times: number][] = [
  ['S', 1],
  ['M', 1.5],
  ['L', 2],
];
export const MIN_SIDE = 64;
export const MAX_SIDE = 4096;

export const onGrid = (x: number, grid = 8): number =>
  Math.min(MAX_SIDE, Math.max(MIN_SIDE, Math.round(x / grid) * grid));

/** The side of the square with as many pixels. */
const sideOf = (n: Native): number => Math.sqrt(n.width * n.height);
export const sideAt = (native: Native, times: number): number => onGrid(sideOf(native) * times);

/** A shape (w : h) with about the pixels of a square of `times` the native side, on a grid of an eighth of that side. */
export function sized(native: Native, w: number, h: number, times: number): [number, number] {
  const side = sideOf(native) * times;
  const grid = Math.max(8, Math.round(sideOf(native) / 64) * 8);
  return [onGrid(side * Math.sqrt(w / h), grid), onGrid(side * Math.sqrt(h / w), grid)];
}

export const nearestScale = (native: Native, width: number, height: number): number => {
  const side = Math.sqrt(width * height) / sideOf(native);
  return SCALES.reduce((best, [, times]) => (Math.abs(times - side) < Math.abs(best - side) ? times : best), 1);
};

/** The entry of SHAPES that has this size at one of the scales. */
export function shapeOf(native: Native, width: number, height: number): (typeof SHAPES)[number] | null {
  const times = nearestScale(native, width, height);
  return SHAPES.find(([, w, h]) => String(sized(native, w, h, times)) === String([width, height])) ?? null;
}

/** The same choice for another model. A size that was not chosen among those of the old one stays as it is. */
export function carryOver(from: Native, to: Native, width: number, height: number): [number, number] {
  if (width === from.width && height === from.height) return [to.width, to.height];
  const shape = shapeOf(from, width, height);
  return shape ? sized(to, shape[1], shape[2], nearestScale(from, width, height)) : [width, height];
}
