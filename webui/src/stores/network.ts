// What a network beside the model needs: which file, for the family of the loaded model, and a picture. What is chosen
// is the store's to keep; the picture stays only as long as the page is open.
import { computed, shallowRef, type Ref } from 'vue';
import type { ModelType } from '@/api/types';
import { modelTitle } from '@/lib/format';
import { asInitImage } from '@/lib/picture-file';
import { useAlerts } from './alerts';
import type { InitImage } from './form';
import { useModels } from './models';

export function network(type: ModelType, fields: Ref<{ model: string }>) {
  const models = useModels();
  const picture = shallowRef<InitImage | null>(null);

  const options = computed(() => {
    const family = models.activeImage?.family ?? null;
    return models
      .ofType(type)
      .filter((m) => m.supported && (!family || m.family === family))
      .map((m) => ({ value: m.id, label: modelTitle(m.id) }));
  });
  const model = computed({
    get: () =>
      options.value.some((o) => o.value === fields.value.model) ? fields.value.model : (options.value[0]?.value ?? ''),
    set: (id) => (fields.value.model = id),
  });
  const isOn = computed(() => picture.value !== null && model.value !== '');

  async function take(file: File): Promise<void> {
    try {
      picture.value = await asInitImage(file);
    } catch (error) {
      useAlerts().failed('This picture cannot be used', error);
    }
  }
  return { picture, options, model, isOn, take };
}
