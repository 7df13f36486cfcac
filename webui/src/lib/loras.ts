// LoRAs in a prompt, as A1111 writes them: <lora:name:weight>, or <lora:name:text encoder:UNet>. The prompt is where they
// are kept; what the page shows of them is read from it.
import type { LoraParam } from '@/api/types';

export interface LoraTag {
  start: number;
  end: number;
  name: string;
  te: number;
  unet: number;
}

const TAG = /<(?:lora|lyco):([^>]+)>/g;

const number = (text: string | undefined, otherwise: number): number => {
  const value = Number(text);
  return text === undefined || text.trim() === '' || !Number.isFinite(value) ? otherwise : value;
};

function readTag(start: number, whole: string, inside: string): LoraTag {
  const [name = '', ...items] = inside.split(':').map((s) => s.trim());
  const named = new Map(items.filter((s) => s.includes('=')).map((s) => s.split('=') as [string, string]));
  const plain = items.filter((s) => !s.includes('='));
  const te = number(named.get('te'), number(plain[0], 1));
  return { start, end: start + whole.length, name, te, unet: number(named.get('unet'), number(plain[1], te)) };
}

export const readTags = (text: string): LoraTag[] =>
  [...text.matchAll(TAG)].map((m) => readTag(m.index, m[0], m[1] ?? ''));

export const writeTag = (name: string, te: number, unet = te): string =>
  te === unet ? `<lora:${name}:${te}>` : `<lora:${name}:${te}:${unet}>`;

export const setWeight = (text: string, tag: LoraTag, weight: number): string =>
  text.slice(0, tag.start) + writeTag(tag.name, weight) + text.slice(tag.end);

/** With the blank that stood before it. */
export function removeTag(text: string, tag: LoraTag): string {
  const start = text[tag.start - 1] === ' ' ? tag.start - 1 : tag.start;
  return text.slice(0, start) + text.slice(tag.end);
}

export const addTag = (text: string, tag: string): string => (text.trim() ? `${text.trimEnd()} ${tag}` : tag);

export const withoutTags = (text: string): string => readTags(text).reduceRight(removeTag, text);

/** Only the tags, as they stand. */
export const tagsOf = (text: string): string => [...text.matchAll(TAG)].map((m) => m[0]).join(' ');

/** A picture that was asked for with a list has them beside its prompt; here they go into it. */
export const withLoras = (text: string, loras: LoraParam[] | undefined): string =>
  (loras ?? []).reduce((all, l) => addTag(all, writeTag(l.name, l.te_weight ?? l.weight ?? 1, l.weight ?? 1)), text);
