// Groups of fields that last: they are kept in the browser at every change, and only what is unusual is sent.
import { ref, watch, type Ref } from 'vue';
import { load, save } from './storage';

/** Fields that begin as they were left, else with `defaults`. */
export function kept<T extends object>(key: string, defaults: T): Ref<T> {
  const fields = ref({ ...defaults, ...load<Partial<T>>(key, {}) }) as Ref<T>;
  watch(fields, (f) => save(key, f), { deep: true });
  return fields;
}

/** The fields that are not as usual. */
export function unusual<T extends object>(fields: T, defaults: T): Partial<T> {
  const out: Partial<T> = {};
  for (const key of Object.keys(defaults) as (keyof T)[]) if (fields[key] !== defaults[key]) out[key] = fields[key];
  return out;
}

/** Fields read from a picture; those that it does not tell become the usual ones. */
export function takeOver<T extends object>(fields: T, defaults: T, given: object | null): void {
  for (const key of Object.keys(defaults) as (keyof T)[])
    fields[key] = (given as Partial<T> | null)?.[key] ?? defaults[key];
}
