// The LoRAs that there are, by the names that a prompt calls them, and those that the prompt has.
import { defineStore } from 'pinia';
import { computed } from 'vue';
import { modelTitle } from '@/lib/format';
import { addTag, readTags, removeTag, setWeight, writeTag, type LoraTag } from '@/lib/loras';
import { fitsFamily, withoutEnding, type Nameable } from '@/lib/names';
import { useForm } from './form';
import { useModels } from './models';

export const useLoras = defineStore('loras', () => {
  const form = useForm();
  const models = useModels();

  const all = computed<Nameable[]>(() => {
    const files = models.ofType('lora');
    const family = models.activeImage?.family ?? null;
    return files.map((model) => {
      const title = modelTitle(model.id);
      const alone = files.filter((m) => modelTitle(m.id) === title).length === 1;
      const name = alone ? title : withoutEnding(model.id);
      return { name, model, fits: fitsFamily(model, family) };
    });
  });
  const tags = computed(() => readTags(form.fields.prompt));

  /** Whether the server will find it: by id, with or without its ending, by file name, or by what it calls itself. */
  const known = (name: string): boolean =>
    all.value.some(({ model }) =>
      [model.id, withoutEnding(model.id), model.id.split('/').pop(), modelTitle(model.id), model.alias].includes(name),
    );

  function add(lora: Nameable): void {
    form.fields.prompt = addTag(form.fields.prompt, writeTag(lora.name, 1));
  }
  function weigh(tag: LoraTag, weight: number): void {
    form.fields.prompt = setWeight(form.fields.prompt, tag, weight);
  }
  function remove(tag: LoraTag): void {
    form.fields.prompt = removeTag(form.fields.prompt, tag);
  }

  return { all, tags, known, add, weigh, remove };
});
