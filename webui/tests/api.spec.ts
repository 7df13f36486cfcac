import { describe, expect, it, vi } from 'vitest';
import { api, ApiError, onUnauthorized, setApiKey } from '@/api/client';
import { readEventStream } from '@/api/event-stream';
import { bodyOf, token } from './make';
import { answer, calls } from './setup';

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const out: T[] = [];
  for await (const x of source) out.push(x);
  return out;
}

describe('event streams', () => {
  it('joins lines and characters that arrive in pieces', async () => {
    const bytes = new TextEncoder().encode('data: grün\n\n');
    const body = bodyOf(
      ': hello\nda',
      'ta: a\r\n\r\n',
      bytes.slice(0, 9),
      bytes.slice(9),
      'event: x\ndata: 1\ndata: 2\n\n',
      'data: cut off',
    );
    expect(await collect(readEventStream(body))).toEqual(['a', 'grün', '1\n2']);
  });
  it('keeps spaces after the first one', async () => {
    expect(await collect(readEventStream(bodyOf('data:  two\n\ndata:none\n\n')))).toEqual([' two', 'none']);
  });
  it('refuses an endless line', async () => {
    await expect(collect(readEventStream(bodyOf(`data: ${'x'.repeat(1 << 21)}`)))).rejects.toThrow('too long');
  });
});

describe('requests', () => {
  it("turns the error envelope into an error in the server's words", async () => {
    answer(
      'POST /v1/jobs',
      Response.json(
        { error: { message: 'steps: 0 is not between 1 and 200', code: 'invalid', param: 'steps' } },
        { status: 400 },
      ),
    );
    const error = await api.createJob('txt2img', {}).catch((e) => e);
    expect(error).toBeInstanceOf(ApiError);
    expect(error).toMatchObject({
      message: 'steps: 0 is not between 1 and 200',
      status: 400,
      code: 'invalid',
      param: 'steps',
    });
  });
  it('survives an error that is not JSON', async () => {
    answer('GET /health', new Response('<html>', { status: 502, statusText: 'Bad Gateway' }));
    await expect(api.health()).rejects.toThrow('The server answered 502 Bad Gateway');
  });
  it('says when there is no server', async () => {
    answer('GET /health', new TypeError('Failed to fetch'));
    await expect(api.health()).rejects.toMatchObject({ status: 0, code: 'unreachable' });
  });
  it('asks for a key on 401 and sends it from then on, as header and cookie', async () => {
    const asked = vi.fn();
    onUnauthorized(asked);
    answer('GET /v1/options', () =>
      Response.json({ error: { message: 'key', code: 'unauthorized' } }, { status: 401 }),
    );
    await expect(api.options()).rejects.toThrow('key');
    expect(asked).toHaveBeenCalledOnce();
    setApiKey('a b');
    await api.options().catch(() => {});
    expect(calls.at(-1)?.headers.Authorization).toBe('Bearer a b');
    expect(document.cookie).toContain('mysti_key=a%20b');
  });
  it('leaves empty filters out and escapes the others', async () => {
    answer('GET /v1/history/images', { data: [], next: null });
    await api.pictures({ limit: 5, before: null, q: 'a&b=c' });
    expect(calls[0]?.path).toBe('/v1/history/images?limit=5&q=a%26b%3Dc');
    expect(api.eventsUrl(null)).toBe('/v1/events');
    expect(api.eventsUrl('7')).toBe('/v1/events?last_event_id=7');
  });
});

describe("the wand's stream", () => {
  const enhance = () => collect(api.enhance('cat', new AbortController().signal));
  it('yields text until [DONE]', async () => {
    answer(
      'POST /v1/prompt/enhance',
      new Response(
        bodyOf(token('a '), token('cat'), 'data: {"choices":[{"delta":{}}]}\n\n', 'data: [DONE]\n\n', token('never')),
      ),
    );
    expect(await enhance()).toEqual(['a ', 'cat']);
    expect(calls[0]?.body).toEqual({ prompt: 'cat', stream: true });
  });
  it('throws an error that comes in mid-stream', async () => {
    answer(
      'POST /v1/prompt/enhance',
      new Response(bodyOf(token('a'), 'data: {"error":{"message":"the model went away","code":"gone"}}\n\n')),
    );
    await expect(enhance()).rejects.toMatchObject({ message: 'the model went away', code: 'gone' });
  });
});
