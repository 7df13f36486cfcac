// The Magic Wand: the language model rewrites the prompt, word by word, in the prompt field itself.
import { defineStore } from 'pinia';
import { computed, ref, watch } from 'vue';
import { api, ApiError } from '@/api/client';
import { addTag, tagsOf, withoutTags } from '@/lib/loras';
import { load, save } from '@/lib/storage';
import { useAlerts } from './alerts';
import { useForm } from './form';
import { useModels } from './models';

const MAX_UNDO = 20;

export const useWand = defineStore('wand', () => {
  const form = useForm();
  const models = useModels();
  const streaming = ref(false);
  const waiting = ref(false); // asked, no word yet
  const needsModel = ref(false); // the hint that a language model must be loaded is open
  const past = ref<string[]>(load('undo', []));
  const canUndo = computed(() => past.value.length > 0 && !streaming.value);
  let abort: AbortController | null = null;

  watch(past, (p) => save('undo', p));
  watch(
    () => models.activeLlm,
    (m) => {
      if (m) needsModel.value = false;
    },
  );

  /** The language model sees no LoRA tags; they stay behind what it writes. */
  async function stream(original: string, signal: AbortSignal): Promise<void> {
    const tags = tagsOf(original);
    let text = '';
    for await (const piece of api.enhance(withoutTags(original), signal)) {
      if (text === '') past.value = [...past.value, original].slice(-MAX_UNDO);
      waiting.value = false;
      text += piece;
      form.fields.prompt = tags ? addTag(text.trimStart(), tags) : text.trimStart();
    }
  }

  /** What to say when the stream failed; the words that came stay, and undo brings the old prompt back. */
  function explain(error: unknown): void {
    if (error instanceof DOMException && error.name === 'AbortError') return;
    if (error instanceof ApiError && error.code === 'model_not_loaded') needsModel.value = true;
    else useAlerts().failed('The wand stopped', error);
  }

  async function cast(): Promise<void> {
    const original = form.fields.prompt;
    if (streaming.value || !withoutTags(original).trim()) return;
    if (models.known && !models.activeLlm) {
      needsModel.value = true;
      return;
    }
    const mine = new AbortController();
    abort = mine;
    streaming.value = waiting.value = true;
    try {
      await stream(original, mine.signal);
    } catch (error) {
      explain(error);
    } finally {
      streaming.value = waiting.value = false;
      if (abort === mine) abort = null;
    }
  }
  function stop(): void {
    abort?.abort();
  }
  function undo(): void {
    const last = past.value[past.value.length - 1];
    if (last === undefined || streaming.value) return;
    form.fields.prompt = last;
    past.value = past.value.slice(0, -1);
  }

  return { streaming, waiting, needsModel, past, canUndo, cast, stop, undo };
});
