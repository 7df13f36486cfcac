// What every browser test needs: a server, a fresh Chromium, screenshots. The server is a mock; with MYSTI_REAL=1 the
// three real programs with tiny models, started for the test; with MYSTI_URL one that runs already.
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Studio, until } from '../e2e/studio.mjs';
import { makeMock } from './mock-server.mjs';

// playwright-core is one of the page's development dependencies.
const require = createRequire(new URL('../../webui/package.json', import.meta.url));
const { chromium } = require('playwright-core');

export const real = Boolean(process.env.MYSTI_URL || process.env.MYSTI_REAL);
export const SHOTS =
  process.env.MYSTI_SCREENSHOTS ??
  fileURLToPath(new URL(`../../build/screenshots${real ? '/real' : ''}`, import.meta.url));
export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

const FLAGS = [
  '--headless',
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
];

/** `{url, mock, close}`: mock is null when the tests run against real programs. */
export async function startServer(options = {}) {
  if (process.env.MYSTI_URL)
    return { url: process.env.MYSTI_URL.replace(/\/$/, ''), mock: null, close: async () => {} };
  if (real) {
    const studio = await Studio.start();
    await until('the model folder is read', async () => (await studio.get('/v1/models')).data.length > 0);
    await studio.loadImageModel();
    await studio.loadLlm('tiny-llm-slow.gguf');
    return { url: studio.base, mock: null, close: () => studio.stop().then(() => studio.cleanup()) };
  }
  const mock = makeMock(options);
  return { url: await mock.listen(0), mock, close: () => mock.close() };
}

export async function startBrowser() {
  const profile = mkdtempSync(join(tmpdir(), 'mysti-web-'));
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: FLAGS,
    env: { ...process.env, HOME: profile },
  });
  return {
    /** A page with storage of its own. `errors` collects what a page must not do: exceptions and policy violations. */
    async open(url, { size = DESKTOP, dark = false } = {}) {
      const context = await browser.newContext({
        viewport: size,
        colorScheme: dark ? 'dark' : 'light',
        deviceScaleFactor: 1,
        hasTouch: size === PHONE,
      });
      await context
        .grantPermissions(['clipboard-read', 'clipboard-write'], { origin: new URL(url).origin })
        .catch(() => {});
      const page = await context.newPage();
      page.setDefaultTimeout(60_000);
      page.errors = [];
      page.on('pageerror', (e) => page.errors.push(String(e)));
      page.on('console', (m) => {
        if (m.type() === 'error' && /Content Security Policy|Uncaught|\[Vue warn\]/.test(m.text()))
          page.errors.push(m.text());
      });
      await page.goto(url);
      return page;
    },
    /** An open page holds an event stream, and jobs of its own may still show: each test starts without the others' pages. */
    async closePages() {
      await Promise.all(browser.contexts().map((c) => c.close()));
    },
    async close() {
      await browser.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

/** What axe finds wrong for people who use a keyboard, a screen reader or need contrast. */
export async function accessibility(page) {
  await settled(page);
  await page.evaluate(readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8'));
  const result = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return result.violations.map(
    (v) =>
      `${v.impact} ${v.id}: ${v.nodes
        .slice(0, 3)
        .map((n) => `${n.target} ${n.any[0]?.message ?? ''}`)
        .join(' | ')}`,
  );
}

/** Nothing is half faded in any more, except what moves for ever. */
const settled = (page) =>
  page.evaluate(() =>
    Promise.allSettled(
      document
        .getAnimations()
        .filter((a) => Number.isFinite(a.effect?.getComputedTiming().endTime))
        .map((a) => a.finished),
    ),
  );

export async function shot(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  await settled(page);
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}
