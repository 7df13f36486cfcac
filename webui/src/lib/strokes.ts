// A mask as the strokes that made it: small to keep, free to undo, and as sharp as the picture at any size.

/** Points and size in pixels of the picture. */
export interface Stroke {
  erase: boolean;
  size: number; // diameter
  points: [number, number][];
}

const MAX_SIDE = 2048; // as pictures are sent

/** Whether anything is painted; what an eraser took away again is not looked at. */
export const paints = (strokes: Stroke[]): boolean => strokes.some((s) => !s.erase);

/** Draws the strokes over what is there; `scale` is pixels of the canvas for one of the picture. */
export function draw(ctx: CanvasRenderingContext2D, strokes: Stroke[], scale: number, colour: string): void {
  ctx.lineCap = ctx.lineJoin = 'round';
  ctx.strokeStyle = colour;
  for (const s of strokes) {
    const [[x, y] = [0, 0], ...rest] = s.points;
    ctx.globalCompositeOperation = s.erase ? 'destination-out' : 'source-over';
    ctx.lineWidth = s.size * scale;
    ctx.beginPath();
    ctx.moveTo(x * scale, y * scale);
    for (const [px, py] of rest.length ? rest : [[x, y]]) ctx.lineTo(px! * scale, py! * scale);
    ctx.stroke();
  }
  ctx.globalCompositeOperation = 'source-over';
}

/** White on black, as a PNG in a data URL. */
export function maskUrl(strokes: Stroke[], width: number, height: number): string {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const ctx = canvas.getContext('2d')!;
  draw(ctx, strokes, scale, '#fff');
  ctx.globalCompositeOperation = 'destination-over'; // black behind, also where the eraser was
  ctx.fillStyle = '#000';
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/png');
}
