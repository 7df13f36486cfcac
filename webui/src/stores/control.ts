// ControlNets, each with its picture. What is chosen is kept in the browser, the pictures are not.
import { defineStore } from 'pinia';
import { computed, reactive, ref, shallowRef, watch } from 'vue';
import type { ControlParam, ImageParams, Told } from '@/api/types';
import { load, save } from '@/lib/storage';
import { network } from './network';

export interface ControlFields {
  model: string; // its id
  weight: number;
  start: number;
  end: number;
  mode: string;
  canny: boolean; // edges are found in the picture; else it is a control picture already
  low_threshold: number;
  high_threshold: number;
}

const defaults: ControlFields = {
  model: '',
  weight: 1,
  start: 0,
  end: 1,
  mode: 'balanced',
  canny: true,
  low_threshold: 100,
  high_threshold: 200,
};
export const CONTROLS_MAX = 8;
let opened = 0;

function openControl(given: Partial<ControlFields>) {
  const fields = ref<ControlFields>({ ...defaults, ...given });
  return reactive({ key: ++opened, fields, ...network('controlnet', fields) });
}
export type Control = ReturnType<typeof openControl>;

const fieldsOf = ({ preprocessor, image: _, ...told }: Told<ControlParam>): Partial<ControlFields> => ({
  ...told,
  canny: preprocessor === 'canny',
});

/** What one is asked for with; null while it has no picture. */
function paramOf(c: Control): ControlParam | null {
  if (!c.picture || !c.isOn) return null;
  const { weight, start, end, mode, canny, low_threshold, high_threshold } = c.fields;
  return {
    model: c.model,
    image: c.picture.value,
    weight,
    ...(start > 0 || end < 1 ? { start, end } : {}),
    ...(mode !== defaults.mode ? { mode } : {}),
    ...(canny ? { preprocessor: 'canny', low_threshold, high_threshold } : { preprocessor: 'none' }),
  };
}

export const useControl = defineStore('control', () => {
  const stored = load<Partial<ControlFields>[]>('controls', []);
  const all = shallowRef<Control[]>((stored.length ? stored : [{}]).map(openControl));
  const used = computed(() => all.value.filter((c) => c.isOn).length);
  watch(
    () => all.value.map((c) => c.fields),
    (fields) => save('controls', fields),
    { deep: true },
  );

  function add(): void {
    if (all.value.length < CONTROLS_MAX) all.value = [...all.value, openControl({})];
  }
  function remove(control: Control): void {
    all.value = all.value.filter((c) => c !== control);
    if (!all.value.length) add();
  }

  /** Those that a picture was made with. Without any all are off, and keep what is chosen. */
  async function use(told: Told<ControlParam>[] = []): Promise<void> {
    if (told.length) all.value = told.map((t) => openControl(fieldsOf(t)));
    await Promise.all(all.value.map((c, i) => (told[i] ? c.bring(told[i]) : c.show(null))));
  }
  const missing = computed(() => all.value.map((c) => c.missing).filter(Boolean));

  /** What goes with the form's parameters. */
  function params(): Partial<ImageParams> {
    const controlnet = all.value.map(paramOf).filter((p) => p !== null);
    return controlnet.length ? { controlnet } : {};
  }

  return { all, used, missing, add, remove, use, params };
});
