// A ControlNet and its picture. What is chosen is kept in the browser.
import { defineStore } from 'pinia';
import { ref, watch } from 'vue';
import type { ImageParams } from '@/api/types';
import { load, save } from '@/lib/storage';
import { network } from './network';

export interface ControlFields {
  model: string; // its id
  weight: number;
  canny: boolean; // edges are found in the picture; else it is a control picture already
}

const defaults: ControlFields = { model: '', weight: 1, canny: true };

export const useControl = defineStore('control', () => {
  const fields = ref<ControlFields>({ ...defaults, ...load<Partial<ControlFields>>('control', {}) });
  const { picture, options, model, isOn, take } = network('controlnet', fields);
  watch(fields, (f) => save('control', f), { deep: true });

  /** What goes with the form's parameters. */
  function params(): Partial<ImageParams> {
    if (!picture.value || !isOn.value) return {};
    const { weight, canny } = fields.value;
    const image = picture.value.value;
    return { controlnet: [{ model: model.value, image, weight, preprocessor: canny ? 'canny' : 'none' }] };
  }

  return { fields, picture, options, model, isOn, take, params };
});
