// Other ways through the models: a refiner that takes over within the run, tiles, step caching, another decoder. Kept in
// the browser at every change.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import type { ImageParams } from '@/api/types';
import { modelTitle } from '@/lib/format';
import { kept, takeOver } from '@/lib/kept';
import { useModels } from './models';

export const NO_REFINER = 'none';
export const OWN_VAE = 'full';

export const flowDefaults = {
  refiner: NO_REFINER,
  switch_at: 0.8,
  diffusion_tile: 0, // 0: the whole picture at once
  diffusion_tile_overlap: 64,
  cache_interval: 1, // 1: off
  vae: OWN_VAE, // or 'taesd'
};

export const useFlows = defineStore('flows', () => {
  const models = useModels();
  const fields = kept('flows', flowDefaults);

  const refiners = computed(() => [
    { value: NO_REFINER, label: 'None' },
    ...models
      .ofType('image')
      .filter((m) => m.supported)
      .map((m) => ({ value: m.id, label: modelTitle(m.id) })),
  ]);

  const hasTaesd = computed(() => models.ofType('vae').some((m) => m.family === 'taesd' && m.supported));

  function params(): Partial<ImageParams> {
    const { refiner, switch_at, diffusion_tile, diffusion_tile_overlap, cache_interval, vae } = fields.value;
    return {
      ...(refiner === NO_REFINER ? {} : { refiner, switch_at }),
      ...(diffusion_tile ? { diffusion_tile, diffusion_tile_overlap } : {}),
      ...(cache_interval > 1 ? { cache_interval } : {}),
      ...(vae !== OWN_VAE && hasTaesd.value ? { vae } : {}),
    };
  }
  const use = (given: Partial<ImageParams> | null) => takeOver(fields.value, flowDefaults, given);

  return { fields, refiners, hasTaesd, params, use };
});
