// The networks that enlarge pictures, among the files of the model folder.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import { modelTitle } from '@/lib/format';
import { useModels } from './models';

export interface Upscaler {
  id: string;
  title: string;
}

export const useUpscalers = defineStore('upscalers', () => {
  const models = useModels();
  const usable = computed<Upscaler[]>(() =>
    models
      .ofType('upscaler')
      .filter((m) => m.supported)
      .map((m) => ({ id: m.id, title: modelTitle(m.id) })),
  );
  return { usable };
});
