// A picture as prompt (IP-Adapter). What is chosen is kept in the browser.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import type { ImageParams } from '@/api/types';
import { modelTitle } from '@/lib/format';
import { kept } from '@/lib/kept';
import { useModels } from './models';
import { network } from './network';

export interface IpAdapterFields {
  model: string; // its id
  encoder: string; // the id of what it reads pictures with
  weight: number;
  start: number; // shares of the run
  end: number;
}

const defaults: IpAdapterFields = { model: '', encoder: '', weight: 0.7, start: 0, end: 1 };

export const useIpAdapter = defineStore('ip-adapter', () => {
  const models = useModels();
  const fields = kept('ip-adapter', defaults);
  const { picture, options, model, isOn, take } = network('ip_adapter', fields);

  const encoders = computed(() =>
    models
      .ofType('clip_vision')
      .filter((m) => m.supported)
      .map((m) => ({ value: m.id, label: modelTitle(m.id) })),
  );
  const encoder = computed({
    get: () =>
      encoders.value.some((o) => o.value === fields.value.encoder)
        ? fields.value.encoder
        : (encoders.value[0]?.value ?? ''),
    set: (id) => (fields.value.encoder = id),
  });

  /** What goes with the form's parameters. */
  function params(): Partial<ImageParams> {
    if (!picture.value || !isOn.value) return {};
    const { weight, start, end } = fields.value;
    const image = picture.value.value;
    const span = start > 0 || end < 1 ? { start, end } : {};
    return { ip_adapter: { model: model.value, clip_vision: encoder.value, image, weight, ...span } };
  }

  return { fields, picture, options, model, encoders, encoder, isOn, take, params };
});
