// A picture from the user's disk or clipboard, made small enough to travel with a request.
import type { InitImage } from '@/stores/form';

const MAX_SIDE = 2048;
const MAX_BYTES = 12_000_000; // sent as it is up to here, drawn anew above
const MAX_FILE = 100_000_000;

export function readDataUrl(file: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(new Error('The file could not be read.'));
    reader.readAsDataURL(file);
  });
}

function redraw(bitmap: ImageBitmap): string {
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement('canvas');
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  canvas.getContext('2d')?.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL('image/jpeg', 0.95);
}

export async function asInitImage(file: File): Promise<InitImage> {
  if (file.size > MAX_FILE) throw new Error('The file is larger than 100 MB.');
  const bitmap = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name || 'The file'} is not a picture that this browser can read.`);
  });
  const native = /^image\/(png|jpeg|webp)$/.test(file.type);
  const fits = native && file.size <= MAX_BYTES && Math.max(bitmap.width, bitmap.height) <= MAX_SIDE;
  const value = fits ? await readDataUrl(file) : redraw(bitmap);
  const { width, height } = bitmap;
  bitmap.close();
  return { kind: 'data', value, src: value, name: file.name || 'pasted picture', width, height };
}

/** The first picture in a drop or a paste. */
export function pictureIn(transfer: DataTransfer | null): File | null {
  return [...(transfer?.files ?? [])].find((f) => f.type.startsWith('image/')) ?? null;
}
