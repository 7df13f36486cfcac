// What a network beside the model needs: which file, for the family of the loaded model, and a picture. What is chosen
// is the store's to keep; the picture stays only as long as the page is open.
import { computed, ref, shallowRef, type Ref } from 'vue';
import { api, ApiError } from '@/api/client';
import type { ModelType } from '@/api/types';
import { fileName, modelTitle } from '@/lib/format';
import { asInitImage, readDataUrl } from '@/lib/picture-file';
import { useAlerts } from './alerts';
import type { InitImage } from './form';
import { useModels } from './models';

export type NetworkPicture = Pick<InitImage, 'value' | 'src' | 'name'>;

interface GivenPicture extends NetworkPicture {
  blob: Blob;
}

export function network(type: ModelType, fields: Ref<{ model: string }>) {
  const models = useModels();
  const picture = shallowRef<NetworkPicture | null>(null);
  const missing = ref(''); // of what a picture was made with
  let brought = 0;

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
      show(await asInitImage(file));
    } catch (error) {
      useAlerts().failed('This picture cannot be used', error);
    }
  }
  function show(given: NetworkPicture | null): void {
    brought++;
    picture.value = given;
    missing.value = '';
  }

  /** Takes up a model and a picture by the names in a job's parameters. Another model does not stand in for one that is
   *  missing: then, too, the network is off and says why. */
  async function bring({ model: id, image }: { model: string; image?: string | null }): Promise<void> {
    show(null);
    const ticket = brought;
    if (!options.value.some((o) => o.value === id)) {
      missing.value = `${modelTitle(id)} is not there for the loaded model.`;
      return;
    }
    const [found, why] = image ? await pictureOf(image) : [null, 'is not in the file'];
    if (ticket !== brought) return;
    picture.value = found;
    if (!found) missing.value = `${modelTitle(id)}: its picture ${why}.`;
  }
  return { picture, missing, options, model, isOn, take, show, bring };
}

/** A picture that a job was given, by the name in its parameters, or why there is none. */
export async function pictureOf(image: string): Promise<[GivenPicture | null, string]> {
  try {
    const blob = await api.picture(image);
    const value = await readDataUrl(blob);
    return [{ blob, value, src: value, name: fileName(image).replace(/^upload:/, '') }, ''];
  } catch (error) {
    const gone = error instanceof ApiError && error.status === 404;
    return [
      null,
      gone ? 'is no longer on the server' : `did not come: ${error instanceof Error ? error.message : error}`,
    ];
  }
}
