// A conversation with the language model, kept in the browser.
import { defineStore } from 'pinia';
import { ref, watch } from 'vue';
import { api, ApiError } from '@/api/client';
import type { ChatMessage } from '@/api/types';
import { debounce, load, save } from '@/lib/storage';
import { useAlerts } from './alerts';
import { useModels } from './models';

export const useChat = defineStore('chat', () => {
  const models = useModels();
  const messages = ref<ChatMessage[]>(load('chat', []));
  const draft = ref('');
  const streaming = ref(false);
  const needsModel = ref(false); // the hint that a language model must be loaded is open
  let abort: AbortController | null = null;

  const keep = debounce(() => save('chat', messages.value), 300);
  watch(messages, keep, { deep: true });

  async function stream(signal: AbortSignal): Promise<void> {
    const asked = messages.value.slice();
    for await (const piece of api.chat(asked, signal)) {
      if (messages.value.length === asked.length) messages.value.push({ role: 'assistant', content: '' });
      messages.value.at(-1)!.content += piece;
    }
  }

  /** What was asked and got no word in answer goes back to where it was typed. */
  function takeBack(): void {
    if (messages.value.at(-1)?.role !== 'user') return;
    draft.value ||= messages.value.at(-1)!.content;
    messages.value.pop();
  }

  async function send(): Promise<void> {
    const content = draft.value.trim();
    if (!content || streaming.value) return;
    needsModel.value = models.known && !models.activeLlm;
    if (needsModel.value) return;
    messages.value.push({ role: 'user', content });
    draft.value = '';
    abort = new AbortController();
    streaming.value = true;
    try {
      await stream(abort.signal);
    } catch (error) {
      if (error instanceof ApiError && error.code === 'model_not_loaded') needsModel.value = true;
      else if (!abort.signal.aborted) useAlerts().failed('The answer stopped', error);
    } finally {
      takeBack();
      streaming.value = false;
      keep.flush();
    }
  }
  const stop = () => abort?.abort();
  function clear(): void {
    if (!streaming.value) messages.value = [];
  }

  return { messages, draft, streaming, needsModel, send, stop, clear };
});
