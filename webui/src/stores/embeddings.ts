// The textual inversions that there are: each is a word for the prompts, its file's name.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import { modelTitle } from '@/lib/format';
import { fitsFamily, type Nameable } from '@/lib/names';
import { useForm } from './form';
import { useModels } from './models';

export type PromptName = 'prompt' | 'negative_prompt';

export const useEmbeddings = defineStore('embeddings', () => {
  const form = useForm();
  const models = useModels();
  const all = computed<Nameable[]>(() =>
    models
      .ofType('embedding')
      .map((model) => ({
        name: modelTitle(model.id),
        model,
        fits: fitsFamily(model, models.activeImage?.family ?? null),
      })),
  );

  function add(item: Nameable, where: PromptName): void {
    const text = form.fields[where].trimEnd();
    form.fields[where] = text ? `${text.replace(/,$/, '')}, ${item.name}` : item.name;
  }
  return { all, add };
});
