// Files that a prompt may name.
import type { Model } from '@/api/types';

export interface Nameable {
  name: string; // in a prompt
  model: Model;
  fits: boolean; // it is for the family of the loaded model
}

export const withoutEnding = (id: string): string => id.replace(/\.[^./]+$/, '');

export const fitsFamily = (model: Model, family: string | null): boolean =>
  !family || !model.family || model.family === family;
