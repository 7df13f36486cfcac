// How the sampler, its noise and its guidance differ from what is usual.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import type { ImageParams, SamplingParams } from '@/api/types';
import { kept, takeOver, unusual } from '@/lib/kept';

export const OWN_ETA = -1; // the sampler's own
export const RANDOM_SUBSEED = -1;

export const samplingDefaults: SamplingParams = {
  guidance_rescale: 0,
  guidance_start: 0,
  guidance_end: 1,
  dynamic_threshold: 0, // 0: off
  dynamic_threshold_limit: 4,
  subseed: RANDOM_SUBSEED,
  subseed_strength: 0, // 0: off
  seed_resize_from_w: 0, // 0: off
  seed_resize_from_h: 0,
  eta: OWN_ETA,
  s_noise: 1,
  s_churn: 0,
  s_tmin: 0,
  s_tmax: 0, // 0: no limit
  eta_noise_seed_delta: 0,
};
type Field = keyof SamplingParams;
const GROUPS = {
  guidance: (key: Field) => /^(guidance|dynamic)/.test(key),
  variation: (key: Field) => /seed_|^subseed/.test(key) && key !== 'eta_noise_seed_delta',
  noise: (key: Field) => /^(eta|s_)/.test(key),
};
export type SamplingGroup = keyof typeof GROUPS;

export const useSampling = defineStore('sampling', () => {
  const fields = kept('sampling', samplingDefaults);
  const changed = computed(() => Object.keys(unusual(fields.value, samplingDefaults)) as Field[]);
  const isChanged = (group: SamplingGroup) => changed.value.some(GROUPS[group]);
  const params = (): Partial<ImageParams> => unusual(fields.value, samplingDefaults);
  const use = (given: Partial<ImageParams> | null) => takeOver(fields.value, samplingDefaults, given);
  return { fields, isChanged, params, use };
});
