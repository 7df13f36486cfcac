// The model index, and loading and unloading. The state of a load survives a reload of the page only on the server;
// here it says what this page asked for.
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import { api } from '@/api/client';
import type { ImageComponents, LlmOptions, Model, ModelType } from '@/api/types';
import { modelTitle } from '@/lib/format';
import { useAlerts } from './alerts';

export type Engine = 'image' | 'llm';

export const engineOf = (type: ModelType): Engine | null =>
  type === 'llm' ? 'llm' : type === 'image' || type === 'diffusion_model' ? 'image' : null;

export const useModels = defineStore('models', () => {
  const list = ref<Model[]>([]);
  const known = ref(false); // the list has been fetched once
  const refreshing = ref(false);
  const loading = ref<Record<Engine, string | null>>({ image: null, llm: null });
  const errors = ref<Record<string, string>>({}); // model id -> why it did not load

  /** The user's own come first. */
  const ofEngine = (engine: Engine) =>
    list.value.filter((m) => engineOf(m.type) === engine).sort((a, b) => Number(a.demo) - Number(b.demo));
  const images = computed(() => ofEngine('image'));
  const llms = computed(() => ofEngine('llm'));
  const activeImage = computed(() => images.value.find((m) => m.active || m.loaded) ?? null);
  const activeLlm = computed(() => llms.value.find((m) => m.active || m.loaded) ?? null);
  const own = computed(() => images.value.filter((m) => m.supported && !m.demo));
  const ofType = (type: ModelType) => list.value.filter((m) => m.type === type);

  async function sync(): Promise<void> {
    list.value = await api.models();
    known.value = true;
  }
  async function refresh(): Promise<void> {
    refreshing.value = true;
    try {
      list.value = await api.refreshModels();
    } catch (error) {
      useAlerts().failed('Could not read the model folder', error);
    } finally {
      refreshing.value = false;
    }
  }

  async function run(engine: Engine, id: string, action: () => Promise<unknown>, done: string): Promise<boolean> {
    const alerts = useAlerts();
    loading.value = { ...loading.value, [engine]: id };
    delete errors.value[id];
    try {
      await action();
      alerts.toast('success', done, modelTitle(id));
      return true;
    } catch (error) {
      errors.value = { ...errors.value, [id]: error instanceof Error ? error.message : String(error) };
      alerts.failed(`${modelTitle(id)} could not be used`, error);
      return false;
    } finally {
      loading.value = { ...loading.value, [engine]: null };
      await sync().catch(() => {});
    }
  }
  const load = (model: Model, options: ImageComponents & LlmOptions = {}) =>
    engineOf(model.type) === 'llm'
      ? run('llm', model.id, () => api.loadLlm(model.id, options), 'Language model loaded')
      : run('image', model.id, () => api.loadModel(model.id, options), 'Image model loaded');
  const unload = (model: Model) =>
    engineOf(model.type) === 'llm'
      ? run('llm', model.id, api.unloadLlm, 'Language model unloaded')
      : run('image', model.id, api.unloadModel, 'Image model unloaded');

  return {
    list,
    known,
    refreshing,
    loading,
    errors,
    images,
    llms,
    activeImage,
    activeLlm,
    own,
    ofType,
    sync,
    refresh,
    load,
    unload,
  };
});
