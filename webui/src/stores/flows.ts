// Other ways through the models: a refiner that takes over within the run, tiles, step caching. Kept in the browser at
// every change.
import { defineStore } from 'pinia';
import { computed, ref, watch } from 'vue';
import type { ImageParams } from '@/api/types';
import { modelTitle } from '@/lib/format';
import { load, save } from '@/lib/storage';
import { useModels } from './models';

export const NO_REFINER = 'none';

export const flowDefaults = {
  refiner: NO_REFINER,
  switch_at: 0.8,
  diffusion_tile: 0, // 0: the whole picture at once
  diffusion_tile_overlap: 64,
  cache_interval: 1, // 1: off
};
export type FlowFields = typeof flowDefaults;

export const useFlows = defineStore('flows', () => {
  const models = useModels();
  const fields = ref<FlowFields>({ ...flowDefaults, ...load<Partial<FlowFields>>('flows', {}) });
  watch(fields, (f) => save('flows', f), { deep: true });

  const refiners = computed(() => [
    { value: NO_REFINER, label: 'None' },
    ...models
      .ofType('image')
      .filter((m) => m.supported)
      .map((m) => ({ value: m.id, label: modelTitle(m.id) })),
  ]);

  function params(): Partial<ImageParams> {
    const { refiner, switch_at, diffusion_tile, diffusion_tile_overlap, cache_interval } = fields.value;
    return {
      ...(refiner === NO_REFINER ? {} : { refiner, switch_at }),
      ...(diffusion_tile ? { diffusion_tile, diffusion_tile_overlap } : {}),
      ...(cache_interval > 1 ? { cache_interval } : {}),
    };
  }
  /** Parameters read from a picture. */
  function use(given: Partial<ImageParams> | null): void {
    for (const key of Object.keys(flowDefaults) as (keyof FlowFields)[])
      Object.assign(fields.value, { [key]: given?.[key] ?? flowDefaults[key] });
  }

  return { fields, refiners, params, use };
});
