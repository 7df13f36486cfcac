import { describe, expect, it } from 'vitest';
import { nextTick } from 'vue';
import { useAlerts } from '@/stores/alerts';
import { useForm } from '@/stores/form';
import { useModels } from '@/stores/models';
import { useWand } from '@/stores/wand';
import { bodyOf, makeModel, token } from './make';
import { answer, calls } from './setup';

const settle = () => new Promise((resolve) => setTimeout(resolve, 0));

/** A stream the test feeds by hand. */
function handFed() {
  let feed!: ReadableStreamDefaultController<Uint8Array>;
  const body = new ReadableStream<Uint8Array>({ start: (c) => void (feed = c) });
  return {
    body,
    put: (s: string) => feed.enqueue(new TextEncoder().encode(s)),
    fail: (e: Error) => feed.error(e),
    end: () => feed.close(),
  };
}

describe('the wand', () => {
  it('writes token by token into the prompt, and undo brings the old prompt back', async () => {
    const form = useForm();
    const wand = useWand();
    const stream = handFed();
    answer('POST /v1/prompt/enhance', new Response(stream.body));
    form.fields.prompt = 'cat';
    const done = wand.cast();
    await settle();
    expect(form.fields.prompt).toBe('cat'); // nothing is lost before the first word
    expect(wand.waiting).toBe(true);
    stream.put(token(' a'));
    await settle();
    expect(form.fields.prompt).toBe('a');
    stream.put(token(' big cat'));
    await settle();
    expect(form.fields.prompt).toBe('a big cat');
    stream.put('data: [DONE]\n\n');
    await done;
    expect(wand.streaming).toBe(false);
    await nextTick();
    expect(JSON.parse(localStorage.getItem('mysti.undo') ?? '[]')).toEqual(['cat']);
    wand.undo();
    expect(form.fields.prompt).toBe('cat');
    expect(wand.canUndo).toBe(false);
  });
  it('shows the language model no LoRAs, and keeps them', async () => {
    const form = useForm();
    answer('POST /v1/prompt/enhance', new Response(bodyOf(token(' a big'), token(' cat'), 'data: [DONE]\n\n')));
    form.fields.prompt = 'cat <lora:x:0.5>';
    await useWand().cast();
    expect(calls.at(-1)?.body).toMatchObject({ prompt: 'cat' });
    expect(form.fields.prompt).toBe('a big cat <lora:x:0.5>');
    form.fields.prompt = '<lora:x:0.5>';
    const asked = calls.length;
    await useWand().cast(); // nothing to improve
    expect(calls.length).toBe(asked);
  });
  it('keeps the words that came before an error', async () => {
    const form = useForm();
    answer('POST /v1/prompt/enhance', new Response(bodyOf(token('half'), 'data: {"error":{"message":"gone"}}\n\n')));
    form.fields.prompt = 'cat';
    await useWand().cast();
    expect(form.fields.prompt).toBe('half');
    expect(useWand().canUndo).toBe(true);
    expect(useAlerts().toasts[0]?.text).toBe('gone');
  });
  it('leaves the prompt alone when no word came', async () => {
    const form = useForm();
    answer('POST /v1/prompt/enhance', Response.json({ error: { message: 'busy', code: 'overload' } }, { status: 503 }));
    form.fields.prompt = 'cat';
    await useWand().cast();
    expect(form.fields.prompt).toBe('cat');
    expect(useWand().canUndo).toBe(false);
  });
  it('asks for a model instead of a request when none is loaded', async () => {
    const form = useForm();
    answer('GET /v1/models', { data: [makeModel('l.gguf', { type: 'llm' })] });
    await useModels().sync();
    form.fields.prompt = 'cat';
    await useWand().cast();
    expect(useWand().needsModel).toBe(true);
    expect(calls.some((c) => c.path.includes('enhance'))).toBe(false);
  });
  it('shows the same hint when the server says so', async () => {
    useForm().fields.prompt = 'cat';
    answer(
      'POST /v1/prompt/enhance',
      Response.json({ error: { message: 'none', code: 'model_not_loaded' } }, { status: 503 }),
    );
    await useWand().cast();
    expect(useWand().needsModel).toBe(true);
    expect(useAlerts().toasts).toHaveLength(0);
  });
});
