// A picture as prompt (IP-Adapter). What is chosen is kept in the browser.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import type { ImageParams, IpAdapterParam, Told } from '@/api/types';
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
  const { picture, missing, options, model, isOn, take, show, bring } = network('ip_adapter', fields);

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

  /** The one that a picture was made with; without any it is off, and keeps what is chosen. */
  async function use(told?: Told<IpAdapterParam>): Promise<void> {
    if (!told) return show(null);
    const { image, clip_vision, ...rest } = told;
    fields.value = { ...defaults, ...rest, encoder: clip_vision ?? '' };
    await bring({ model: told.model, image });
    if (!clip_vision || encoders.value.some((o) => o.value === clip_vision)) return;
    show(null);
    missing.value = `${modelTitle(clip_vision)}, which it reads pictures with, is not there.`;
  }

  /** What goes with the form's parameters. */
  function params(): Partial<ImageParams> {
    if (!picture.value || !isOn.value) return {};
    const { weight, start, end } = fields.value;
    const image = picture.value.value;
    const span = start > 0 || end < 1 ? { start, end } : {};
    return { ip_adapter: { model: model.value, clip_vision: encoder.value, image, weight, ...span } };
  }

  return { fields, picture, missing, options, model, encoders, encoder, isOn, take, show, use, params };
});
