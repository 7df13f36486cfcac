// The few browser things the stores need, for tests that run in plain Node.
import { createPinia, setActivePinia } from 'pinia';
import { beforeEach, vi } from 'vitest';

class MemoryStorage {
  private readonly values = new Map<string, string>();
  getItem = (k: string) => this.values.get(k) ?? null;
  setItem = (k: string, v: string) => void this.values.set(k, String(v));
  removeItem = (k: string) => void this.values.delete(k);
  clear = () => this.values.clear();
}

/** An EventSource whose server is the test. */
export class FakeEventSource extends EventTarget {
  static all: FakeEventSource[] = [];
  onerror: (() => void) | null = null;
  closed = false;
  constructor(readonly url: string) {
    super();
    FakeEventSource.all.push(this);
  }
  close(): void {
    this.closed = true;
  }
  send(name: string, data: unknown, lastEventId = ''): void {
    this.dispatchEvent(Object.assign(new Event(name), { data: JSON.stringify(data), lastEventId }));
  }
  static get last(): FakeEventSource {
    return FakeEventSource.all.at(-1)!;
  }
}

/** Reads a file of text as `data:<text>`. */
class FakeReader {
  result = '';
  onload = () => {};
  readAsDataURL(file: Blob): void {
    void file.text().then((text) => {
      this.result = `data:${text}`;
      this.onload();
    });
  }
}

export interface Call {
  method: string;
  path: string;
  body: unknown;
  headers: Record<string, string>;
}
type Answer = Response | Error | ((call: Call) => Response | Promise<Response>);
export const calls: Call[] = [];
const answers = new Map<string, Answer>();

/** Says what the server answers to `METHOD /path` (without query). */
export function answer(route: string, value: Answer | object): void {
  const plain = !(value instanceof Response) && !(value instanceof Error) && typeof value !== 'function';
  answers.set(route, plain ? () => Response.json(value) : (value as Answer));
}

async function fakeFetch(path: string, init: RequestInit = {}): Promise<Response> {
  const method = init.method ?? 'GET';
  const call: Call = {
    method,
    path,
    body: init.body ? JSON.parse(String(init.body)) : undefined,
    headers: init.headers as Record<string, string>,
  };
  calls.push(call);
  const given = answers.get(`${method} ${path.split('?')[0]}`);
  if (!given)
    return Response.json(
      { error: { message: `nobody answers ${method} ${path}`, code: 'not_found' } },
      { status: 404 },
    );
  if (given instanceof Error) throw given;
  return typeof given === 'function' ? given(call) : given;
}

vi.stubGlobal('localStorage', new MemoryStorage());
vi.stubGlobal('sessionStorage', new MemoryStorage());
vi.stubGlobal('matchMedia', () => ({ matches: false, addEventListener: () => {} }));
vi.stubGlobal(
  'document',
  Object.assign(new EventTarget(), { documentElement: { dataset: {} }, cookie: '', visibilityState: 'visible' }),
);
vi.stubGlobal('addEventListener', () => {});
vi.stubGlobal('EventSource', FakeEventSource);
vi.stubGlobal('FileReader', FakeReader);
vi.stubGlobal('fetch', fakeFetch);

beforeEach(() => {
  localStorage.clear();
  sessionStorage.clear();
  calls.length = 0;
  answers.clear();
  FakeEventSource.all = [];
  setActivePinia(createPinia());
});
