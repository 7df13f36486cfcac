// The chat: what is sent, what stays of an answer that was stopped or failed, and where it is kept.
import { createPinia, setActivePinia } from 'pinia';
import { describe, expect, it } from 'vitest';
import { useAlerts } from '@/stores/alerts';
import { useChat } from '@/stores/chat';
import { useModels } from '@/stores/models';
import { bodyOf, makeModel, token } from './make';
import { answer, calls } from './setup';

const ROUTE = 'POST /v1/chat/completions';

describe('the chat', () => {
  it('sends the whole conversation, grows the answer, and keeps both', async () => {
    const chat = useChat();
    answer(ROUTE, () => new Response(bodyOf(token('Hel'), token('lo'), 'data: [DONE]\n\n')));
    chat.draft = '  hi ';
    await chat.send();
    expect([chat.draft, chat.streaming]).toEqual(['', false]);
    chat.draft = 'again';
    await chat.send();
    const first = { role: 'user', content: 'hi' };
    const hello = { role: 'assistant', content: 'Hello' };
    const second = { role: 'user', content: 'again' };
    expect(calls.map((c) => c.body)).toEqual([
      { messages: [first], stream: true },
      { messages: [first, hello, second], stream: true },
    ]);
    setActivePinia(createPinia());
    const later = useChat();
    expect(later.messages).toEqual([first, hello, second, hello]);
    later.clear();
    expect(later.messages).toEqual([]);
  });
  it('keeps the words of an answer that failed, and gives back what got none', async () => {
    const chat = useChat();
    const failure = 'data: {"error":{"message":"the model went away"}}\n\n';
    answer(ROUTE, () => new Response(bodyOf(token('Half'), failure)));
    chat.draft = 'hi';
    await chat.send();
    expect(chat.messages.at(-1)).toEqual({ role: 'assistant', content: 'Half' });
    expect(useAlerts().toasts.at(-1)?.text).toBe('the model went away');
    answer(ROUTE, () => new Response(bodyOf(failure)));
    chat.draft = 'more';
    await chat.send();
    expect([chat.draft, chat.messages.length]).toEqual(['more', 2]);
  });
  it('stops quietly and keeps what was said', async () => {
    const chat = useChat();
    let abort!: () => void;
    const body = new ReadableStream<Uint8Array>({
      start(c) {
        c.enqueue(new TextEncoder().encode(token('Half')));
        abort = () => c.error(new DOMException('aborted', 'AbortError'));
      },
    });
    answer(ROUTE, new Response(body));
    chat.draft = 'hi';
    const sent = chat.send();
    await new Promise((resolve) => setTimeout(resolve));
    expect([chat.streaming, chat.messages.at(-1)?.content]).toEqual([true, 'Half']);
    chat.stop();
    abort();
    await sent;
    expect([chat.streaming, chat.messages.at(-1)?.content]).toEqual([false, 'Half']);
    expect(useAlerts().toasts).toEqual([]);
  });
  it('asks for a model where none is loaded', async () => {
    const chat = useChat();
    const models = useModels();
    models.known = true;
    chat.draft = 'hi';
    await chat.send();
    expect([chat.needsModel, chat.draft, calls.length]).toEqual([true, 'hi', 0]);
    models.list = [makeModel('l.gguf', { type: 'llm', active: true })];
    answer(ROUTE, Response.json({ error: { message: 'gone', code: 'model_not_loaded' } }, { status: 503 }));
    await chat.send();
    expect([chat.needsModel, chat.draft, chat.messages]).toEqual([true, 'hi', []]);
  });
});
