// The page in a real browser; see browser.mjs for which server it talks to. A real one must have an image model and a
// language model loaded.
import assert from 'node:assert/strict';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { accessibility, DESKTOP, PHONE, real, shot, startBrowser, startServer } from './browser.mjs';

// Tiny models are quick with 64 pixels; a picture that must last has more of them.
const SIZE = real ? 64 : 512;
const LONG_SIZE = real ? 256 : 512;
let server, browser;
before(async () => {
  server = await startServer();
  browser = await startBrowser();
});
afterEach(async () => {
  await browser.closePages();
  await cancelAll();
});
after(async () => {
  await browser?.close();
  await server?.close();
});
beforeEach(() => speed({ stepMs: 60, tokenMs: 30 }));

const speed = (values) => Object.assign(server.mock ?? {}, values);
const call = async (method, path, body) =>
  (
    await fetch(server.url + path, {
      method,
      headers: body ? { 'Content-Type': 'application/json' } : {},
      body: body && JSON.stringify(body),
    })
  ).json();
const pictures = async () => (await call('GET', '/v1/history/images?limit=1')).total;

const ui = (page) => ({
  prompt: page.getByLabel('Prompt', { exact: true }),
  generate: page.getByRole('button', { name: /^(Generate|Add to queue)$/ }),
  progress: page.getByRole('progressbar', { name: 'Progress of the picture' }),
  worker: (name) => page.locator(`[data-worker="${name}"]`),
  result: page.getByRole('button', { name: 'Open in full view' }),
});

/** Opens the page, ready to use, with parameters that are quick on any model. */
async function open(options = {}) {
  const page = await browser.open(server.url + (options.path ?? '/'), options);
  await page.locator('[data-worker="sd"][data-state="ready"]').waitFor();
  return page;
}
async function small(page, steps = 6, size = SIZE) {
  await page.getByLabel('Width', { exact: true }).fill(String(size));
  await page.getByLabel('Height', { exact: true }).fill(String(size));
  await page.getByRole('spinbutton', { name: 'Steps' }).fill(String(steps));
  await page.getByRole('spinbutton', { name: 'Steps' }).blur();
}
/** A picture that is surely still being made when the test looks. */
const long = (page) => small(page, 200, LONG_SIZE);
async function crash(worker) {
  if (server.mock) return void (await call('POST', '/mock/crash', { worker }));
  process.kill((await call('GET', '/health')).workers[worker].pid, 'SIGKILL');
}
async function cancelAll() {
  for (const job of (await call('GET', '/v1/jobs?limit=50')).data)
    if (['queued', 'running', 'interrupted'].includes(job.status)) await call('POST', `/v1/jobs/${job.id}/cancel`, {});
}
const clean = (page) => assert.deepEqual(page.errors, []);
/** The newest job, once it is over; it must be one of this prompt. */
async function over(prompt) {
  for (;;) {
    const job = (await call('GET', '/v1/jobs?limit=1')).data[0];
    const waits = !job || ['queued', 'running', 'interrupted'].includes(job.status);
    if (!waits && job.params.prompt === prompt) return job;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

describe('making a picture', () => {
  it('shows steps, a preview and then the picture; the gallery has it', async () => {
    const page = await open();
    const { prompt, generate, progress, result } = ui(page);
    const had = await pictures();
    const steps = real ? 60 : 12; // a tiny model takes milliseconds for a step
    await small(page, steps);
    await prompt.fill('a lighthouse above a sea of fog');
    await generate.click();
    await progress.waitFor();
    await page
      .getByTestId('step')
      .filter({ hasText: new RegExp(`step [1-9]\\d*/${steps}`) })
      .waitFor();
    await page.getByAltText('Preview of the picture being made').waitFor();
    assert.ok(Number(await progress.getAttribute('aria-valuenow')) >= 0);
    await shot(page, 'generate-progress');
    await result.waitFor();
    await progress.waitFor({ state: 'detached' });
    assert.equal(await pictures(), had + 1);
    assert.ok(
      (await result.locator('img').evaluate(async (img) => {
        await img.decode();
        return img.naturalWidth;
      })) > 0,
    );
    await shot(page, 'generate-done');
    clean(page);
  });

  it('Ctrl+Enter in the text area generates; Escape stops; a batch fills the strip', async () => {
    const page = await open();
    const { prompt, generate } = ui(page);
    speed({ stepMs: 200 });
    await long(page);
    await prompt.fill('terraced hills');
    await prompt.press('Control+Enter');
    await page.getByTestId('step').waitFor();
    await page.keyboard.press('Escape');
    await generate.filter({ hasText: 'Generate' }).waitFor();
    assert.equal((await call('GET', '/v1/jobs?limit=1')).data[0].status, 'cancelled');
    speed({ stepMs: 30 });
    await small(page, 3);
    await page.getByRole('spinbutton', { name: 'Pictures' }).fill('3');
    await page.getByRole('spinbutton', { name: 'Pictures' }).blur();
    await prompt.press('Control+Enter');
    await page.getByLabel('Pictures of this job').getByRole('button').nth(2).waitFor();
    await generate.filter({ hasText: 'Generate' }).waitFor();
    clean(page);
  });

  it('queues, shows positions, cancels one that waits', async () => {
    const page = await open();
    const { prompt, generate } = ui(page);
    speed({ stepMs: 200 });
    await long(page);
    for (const text of ['first picture', 'second picture', 'third picture']) {
      await prompt.fill(text);
      await generate.click();
      await page.locator('[data-job]').filter({ hasText: text }).waitFor();
    }
    const second = page.locator('[data-job]').filter({ hasText: 'second picture' });
    await page.locator('[data-job][data-status="queued"]').filter({ hasText: 'number 2' }).waitFor();
    await shot(page, 'queue');
    await second.getByRole('button', { name: /^Cancel/ }).click();
    await second.waitFor({ state: 'detached' });
    assert.equal(await page.locator('[data-job]').count(), 2);
    clean(page);
  });

  it('tells what the server refuses, in its words', async () => {
    const page = await open();
    await page.route('**/v1/jobs', (route) =>
      route.request().method() === 'POST'
        ? route.fulfill({
            status: 429,
            contentType: 'application/json',
            body: JSON.stringify({ error: { message: 'the queue holds 256 jobs already', code: 'busy' } }),
          })
        : route.continue(),
    );
    await ui(page).prompt.fill('x');
    await ui(page).generate.click();
    await page.getByText('the queue holds 256 jobs already').first().waitFor();
    clean(page);
  });
});

describe('the magic wand', () => {
  it('streams words into the prompt while a picture is made; undo brings the old prompt back', async () => {
    const page = await open();
    const { prompt, generate } = ui(page);
    speed({ stepMs: 150, tokenMs: 120 });
    await long(page);
    await prompt.fill('a quiet valley');
    await generate.click();
    await page.getByTestId('step').waitFor();
    const seen = new Set();
    let together = false; // words came while the picture was being made
    await page.getByRole('button', { name: 'Magic Wand' }).click();
    const undo = page.getByRole('button', { name: 'Undo' });
    const end = Date.now() + 60_000;
    while (!(await undo.isVisible()) && Date.now() < end) {
      seen.add(await prompt.inputValue());
      together ||= seen.size > 2 && (await page.getByTestId('step').isVisible());
      if (seen.size === 8) await shot(page, 'wand-streaming');
    }
    assert.ok(seen.size > 3, `the prompt was seen in ${seen.size} states only`);
    assert.ok(together, 'no word came while the picture was being made');
    assert.notEqual(await prompt.inputValue(), 'a quiet valley');
    await undo.click();
    assert.equal(await prompt.inputValue(), 'a quiet valley');
    clean(page);
  });

  it('stops, and undo survives a reload', async () => {
    const page = await open();
    const { prompt } = ui(page);
    speed({ tokenMs: 250 });
    await prompt.fill('volcanic island');
    await page.getByRole('button', { name: 'Magic Wand' }).click();
    await page.getByRole('button', { name: 'Stop wand' }).click();
    await page.getByRole('button', { name: 'Magic Wand' }).waitFor();
    const stopped = await prompt.inputValue();
    await page.waitForTimeout(600);
    assert.equal(await prompt.inputValue(), stopped);
    speed({ tokenMs: 5 });
    await prompt.fill('volcanic island');
    await page.getByRole('button', { name: 'Magic Wand' }).click();
    await page.getByRole('button', { name: 'Undo' }).waitFor();
    await page.getByRole('button', { name: 'Magic Wand' }).waitFor();
    await page.reload();
    await page.getByRole('button', { name: 'Undo' }).click();
    assert.equal(await prompt.inputValue(), 'volcanic island');
    clean(page);
  });

  it('has a chat beside it, whose answers stop, stay, and become prompts', async () => {
    const page = await open({ path: '/chat' });
    const message = page.getByLabel('Message', { exact: true });
    const answers = page.getByRole('article', { name: 'The model' });
    const send = page.getByRole('button', { name: 'Send' });
    speed({ tokenMs: 250 });
    await message.fill('a red circle');
    await message.press('Enter');
    await answers.first().waitFor();
    assert.equal(await message.inputValue(), '');
    await message.press('Escape');
    await send.waitFor();
    await message.fill('and a blue one');
    await send.click();
    await answers.nth(1).waitFor();
    await page.getByRole('button', { name: 'Stop', exact: true }).click();
    await send.waitFor();
    const said = await answers.nth(1).locator('p').textContent();
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'chat');
    await page.reload();
    assert.equal(await answers.nth(1).locator('p').textContent(), said);
    await page.getByRole('button', { name: 'Use as prompt' }).last().click();
    const words = (text) => text.trim().split(/\s+/);
    assert.deepEqual(words(await ui(page).prompt.inputValue()), words(said));
    await page.keyboard.press('Alt+4');
    await page.getByRole('button', { name: 'New chat' }).click();
    assert.equal(await answers.count(), 0);
    clean(page);
  });

  it('says when no language model is loaded, and loads one on the spot', async () => {
    const page = await open();
    const active = (await call('GET', '/v1/models')).data.find((m) => m.type === 'llm' && m.active);
    await call('POST', '/v1/llm/unload', {});
    await page.getByRole('button', { name: 'No language model' }).waitFor();
    await ui(page).prompt.fill('dunes');
    await page.getByRole('button', { name: 'Magic Wand' }).click();
    await page.getByText('The wand needs a language model').waitFor();
    await shot(page, 'wand-hint');
    await page.getByRole('button', { name: 'Load', exact: true }).click();
    await page.getByRole('button', { name: 'Undo' }).waitFor(); // loaded, and the wand went on by itself
    if (active) await call('POST', '/v1/llm/load', { model_id: active.id });
    clean(page);
  });
});

describe('a crash', () => {
  it('shows as an error that names the fate of the job, and goes green again by itself', async () => {
    const page = await open();
    const { prompt, generate, worker } = ui(page);
    speed({ stepMs: 120 });
    await small(page, real ? 150 : 40, LONG_SIZE); // more than a fast machine makes before the crash
    await prompt.fill('northern fjord in rain');
    await generate.click();
    await page
      .getByTestId('step')
      .filter({ hasText: /step ([3-9]|\d\d)\// })
      .waitFor();
    const over = page.waitForFunction(() => {
      const texts = [...document.querySelectorAll('.toast')].map((t) => t.textContent);
      const ours = texts.filter((t) => t.includes('image worker'));
      return ours.some((t) => t.includes('The image worker is back.')) && ours;
    });
    await crash('sd');
    await page.locator('.toast.error').first().waitFor();
    await shot(page, 'crash');
    await page.locator('[data-worker="sd"][data-state="ready"]').waitFor();
    await worker('sd')
      .filter({ hasText: /Ready|Working/ })
      .waitFor();
    const toasts = await (await over).jsonValue();
    assert.equal(toasts.length, 1, 'one crash, one toast');
    assert.match(
      toasts[0],
      /crashed \(killed by signal 9.*Your picture is not lost: it goes on when the worker is back/s,
    );
    await page.getByRole('button', { name: /^Alerts: / }).click();
    await page
      .getByText(/image worker crashed/i)
      .last()
      .waitFor();
    await shot(page, 'crash-alerts');
    await page.getByRole('button', { name: 'Crash reports' }).click();
    const reports = page.getByRole('dialog', { name: 'Crash reports' });
    await reports
      .getByText(/Image worker:.*killed by signal 9/)
      .first()
      .click();
    const { data } = await call('GET', '/v1/jobs?limit=1');
    await reports.getByText(`It worked at ${data[0].id}`).waitFor();
    await reports.getByLabel('Its last lines').getByText('listening on port').waitFor();
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'crash-reports');
    await page.keyboard.press('Escape');
    await page.locator('.bell:focus').waitFor(); // the focus is where it was
    speed({ stepMs: 15 });
    await generate.filter({ hasText: 'Generate' }).waitFor({ timeout: 300_000 });
    assert.equal((await call('GET', '/v1/jobs?limit=1')).data[0].status, 'done');
    clean(page);
  });

  it('of the text worker does not touch the image worker', async () => {
    const page = await open();
    const before = (await call('GET', '/health')).workers;
    await crash('llm');
    await page.locator('.toast.error').filter({ hasText: 'text worker crashed' }).waitFor();
    await page.locator('[data-worker="llm"][data-state="ready"]').waitFor();
    const after = (await call('GET', '/health')).workers;
    assert.equal(after.llm.restarts, before.llm.restarts + 1);
    assert.equal(after.sd.pid, before.sd.pid);
    assert.equal(await ui(page).worker('sd').getAttribute('data-state'), 'ready');
    clean(page);
  });

  it(
    'in safe mode there is a banner with Retry',
    { skip: real && 'needs five crashes; the end-to-end tests do that' },
    async () => {
      const page = await open();
      await call('POST', '/mock/safe-mode', { worker: 'sd' });
      const banner = page.getByRole('alert').filter({ hasText: 'safe mode' });
      await banner.waitFor();
      await shot(page, 'safe-mode');
      await banner.getByText('load another one, or retry').waitFor();
      assert.equal(await page.locator('.toast').filter({ hasText: 'image worker' }).count(), 1);
      await banner.getByRole('link', { name: 'Models' }).click();
      await page.waitForURL(/models/);
      await banner.getByRole('button', { name: 'Retry' }).click();
      await banner.waitFor({ state: 'detached' });
      await page.locator('[data-worker="sd"][data-state="ready"]').waitFor();
      clean(page);
    },
  );

  it('of the server itself is told; the page comes back and keeps the form', async () => {
    const page = await open();
    await ui(page).prompt.fill('kept while the server is away');
    await page.context().setOffline(true); // closes nothing that is open: cut the stream as well
    await page.route('**/v1/**', (route) => route.abort());
    await page.evaluate(() => dispatchEvent(new Event('online'))); // the page opens its stream anew
    await page.getByText('The server cannot be reached.').waitFor();
    await shot(page, 'server-away');
    await page.unroute('**/v1/**');
    await page.context().setOffline(false);
    await page.getByText('The server cannot be reached.').waitFor({ state: 'detached' });
    assert.equal(await ui(page).prompt.inputValue(), 'kept while the server is away');
    clean(page);
  });
});

describe('LoRAs', () => {
  it('are picked from a list, weighed, and taken away; the prompt has them', async () => {
    for (const job of (await call('GET', '/v1/jobs?limit=50')).data)
      if (['queued', 'running', 'interrupted'].includes(job.status)) await call('POST', `/v1/jobs/${job.id}/cancel`);
    const page = await open();
    const { prompt, generate, result } = ui(page);
    const had = await pictures();
    const name = real ? 'tiny-lora' : 'detail-tweaker';
    await small(page, 3);
    await page.getByRole('spinbutton', { name: 'Pictures' }).fill('1'); // an earlier test may have left more
    await prompt.fill('a quiet valley');
    await page.getByRole('button', { name: 'LoRA', exact: true }).click();
    await page.getByPlaceholder('Find LoRA').fill(real ? 'tiny style' : 'more detail'); // what it calls itself
    await shot(page, 'lora-picker');
    await page.getByRole('dialog').getByRole('button', { name }).click();
    assert.equal(await prompt.inputValue(), `a quiet valley <lora:${name}:1>`);
    const row = page.locator(`[data-lora="${name}"]`);
    await row.getByRole('spinbutton', { name }).fill('0.6');
    await row.getByRole('spinbutton', { name }).blur();
    assert.equal(await prompt.inputValue(), `a quiet valley <lora:${name}:0.6>`);
    await row.getByRole('slider').press('ArrowRight');
    assert.equal(await prompt.inputValue(), `a quiet valley <lora:${name}:0.65>`);
    assert.deepEqual(await accessibility(page), []);
    await generate.click();
    for (let n = 0; n < 600 && (await pictures()) === had; n++) await page.waitForTimeout(50); // the last picture stays until then
    await result.waitFor();
    await generate.filter({ hasText: 'Generate' }).waitFor();
    assert.equal(await pictures(), had + 1);
    const made = (await call('GET', '/v1/history/images?limit=1')).data[0];
    assert.equal(made.prompt, `a quiet valley <lora:${name}:0.65>`);
    await prompt.press('End');
    await prompt.pressSequentially(' <lora:nobody:1>');
    await page.locator('[data-lora="nobody"]').getByText('not found').waitFor();
    await shot(page, 'loras');
    for (const tag of ['nobody', name]) await page.getByRole('button', { name: `Remove ${tag}` }).click();
    assert.equal(await prompt.inputValue(), 'a quiet valley');
    assert.equal(await page.locator('[data-lora]').count(), 0);
    clean(page);
  });
});

describe('embeddings', () => {
  it('are picked from a list, and their names go into the prompt that was chosen', async () => {
    const page = await open();
    const { prompt } = ui(page);
    const picker = page.getByRole('button', { name: 'Embedding', exact: true });
    if (real) return assert.equal(await picker.count(), 0); // there are none among the tiny models
    await prompt.fill('a portrait');
    await picker.click();
    await page.getByPlaceholder('Find Embedding').fill('hands');
    await shot(page, 'embedding-picker');
    assert.deepEqual(await accessibility(page), []);
    await page.getByRole('dialog').getByRole('button', { name: 'good-hands' }).click();
    assert.equal(await prompt.inputValue(), 'a portrait, good-hands');
    await picker.click();
    await page.getByRole('dialog').getByText('Into the negative').click();
    await page.getByPlaceholder('Find Embedding').fill('');
    await page.getByRole('dialog').getByRole('button', { name: 'good-hands' }).click();
    assert.equal(await page.getByLabel('Negative prompt').inputValue(), 'good-hands');
    clean(page);
  });
});

describe('models', () => {
  it('lists by kind, unloads and loads, and shows it in the top bar', async () => {
    const page = await open({ path: '/models' });
    const active = (await call('GET', '/v1/models')).data.find((m) => m.type === 'image' && m.active);
    assert.ok(active, 'these tests need an image model that is loaded');
    const row = page.locator('[data-model]').and(page.locator(`[data-model="${active.id}"]`));
    await row.getByText('Loaded').waitFor();
    await shot(page, 'models');
    await row.getByRole('button', { name: 'Unload' }).click();
    await page.getByRole('button', { name: 'No image model' }).waitFor();
    await row.getByRole('button', { name: 'Load', exact: true }).click();
    await row.getByText('Loaded').waitFor();
    await page.getByRole('button', { name: /^Image model:/ }).click();
    await page.getByPlaceholder('Find a model').waitFor();
    await shot(page, 'model-picker');
    clean(page);
  });

  it('shows why a model was refused', { skip: real && 'needs a broken model' }, async () => {
    const page = await open({ path: '/models' });
    const row = page.locator('[data-model="broken.safetensors"]');
    await row.getByRole('button', { name: 'Load', exact: true }).click();
    await row.getByRole('alert').filter({ hasText: 'the file ends inside tensor' }).waitFor();
    await page.getByText('this family is not supported yet').first().waitFor();
    await shot(page, 'model-refused');
    clean(page);
  });
});

describe('the page', () => {
  it('loses nothing on reload: the form, and the picture that is being made', async () => {
    const page = await open();
    const { prompt, generate } = ui(page);
    speed({ stepMs: 200 });
    await long(page);
    await prompt.fill('kept over a reload');
    await page.getByLabel('Negative prompt').fill('rain');
    await page.getByLabel('Seed', { exact: true }).fill('42');
    await generate.click();
    await page.getByTestId('step').waitFor();
    await page.reload();
    await page.getByTestId('step').waitFor();
    assert.equal(await prompt.inputValue(), 'kept over a reload');
    assert.equal(await page.getByLabel('Negative prompt').inputValue(), 'rain');
    assert.equal(await page.getByLabel('Seed', { exact: true }).inputValue(), '42');
    assert.equal(await page.getByRole('spinbutton', { name: 'Steps' }).inputValue(), '200');
    clean(page);
  });

  it('is dark when the system is, and keeps another choice', async () => {
    const page = await open({ dark: true });
    assert.equal(await page.locator('html').getAttribute('data-theme'), 'dark');
    await shot(page, 'studio-dark');
    await page.getByRole('button', { name: 'Theme' }).click();
    await page.getByRole('button', { name: 'Light', exact: true }).click();
    assert.equal(await page.locator('html').getAttribute('data-theme'), 'light');
    await page.reload();
    assert.equal(await page.locator('html').getAttribute('data-theme'), 'light');
    await page.locator('[data-worker="sd"][data-state="ready"]').waitFor();
    await shot(page, 'studio-light');
    clean(page);
  });

  for (const [name, dark] of [
    ['light', false],
    ['dark', true],
  ])
    it(`works at phone width, ${name}`, async () => {
      const page = await open({ size: PHONE, dark });
      const { prompt, generate, result } = ui(page);
      await small(page, 5);
      await prompt.fill('desert dunes at dusk');
      await shot(page, `phone-create-${name}`);
      await generate.click();
      await result.waitFor(); // Generate turned to the picture's pane
      await result.locator('img').evaluate((img) => img.decode());
      await shot(page, `phone-picture-${name}`);
      await page.getByRole('button', { name: 'Queue' }).click();
      await page.getByRole('heading', { name: 'Recent' }).waitFor();
      await page.getByRole('link', { name: 'Gallery' }).last().click();
      await page.locator('[data-picture]').first().click();
      await page
        .getByRole('dialog')
        .locator('.stage img')
        .evaluate((img) => img.decode());
      await shot(page, `phone-viewer-${name}`);
      await page.keyboard.press('Escape');
      await page.getByRole('link', { name: 'Models' }).click();
      await page.locator('[data-model]').first().waitFor();
      await shot(page, `phone-models-${name}`);
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `the page is ${overflow} px too wide`);
      clean(page);
    });

  it('explains its keys on ?, and changes weights with Ctrl+Up', async () => {
    const page = await open({ size: DESKTOP });
    await page.locator('body').press('?');
    await page.getByRole('dialog', { name: 'Keyboard' }).waitFor();
    await shot(page, 'help');
    await page.keyboard.press('Escape');
    await ui(page).prompt.fill('a red cat');
    await ui(page).prompt.evaluate((el) => el.setSelectionRange(2, 5));
    await ui(page).prompt.press('Control+ArrowUp');
    assert.equal(await ui(page).prompt.inputValue(), 'a (red:1.1) cat');
    clean(page);
  });

  for (const [name, dark] of [
    ['light', false],
    ['dark', true],
  ])
    it(`is accessible in every view, ${name}`, async () => {
      const page = await open({ dark });
      await ui(page).prompt.fill('x');
      assert.deepEqual(await accessibility(page), []);
      await page.getByRole('button', { name: 'Image to image' }).first().click();
      await page.getByRole('button', { name: 'Advanced' }).click();
      assert.deepEqual(await accessibility(page), []);
      await page.goto(`${server.url}/models`);
      await page.locator('[data-model]').first().waitFor();
      assert.deepEqual(await accessibility(page), []);
      await page.goto(`${server.url}/gallery`);
      await page.locator('[data-picture]').first().click();
      await page.getByRole('dialog').waitFor();
      assert.deepEqual(await accessibility(page), []);
    });

  it('renders what a model or a prompt says as text only', async () => {
    const page = await open();
    await page.getByRole('button', { name: 'Text to image' }).click(); // another test may have left the other on the server
    await small(page, 2);
    const nasty = '<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>';
    await ui(page).prompt.fill(nasty);
    await ui(page).generate.click();
    await page.locator('.facts').getByText(nasty).waitFor();
    assert.equal(await page.evaluate(() => window.hacked), undefined);
    clean(page);
  });

  it('asks for the API key and keeps it', { skip: real && 'needs a server started with --api-key' }, async () => {
    const locked = await startServer({ key: 'open sesame' });
    try {
      const page = await browser.open(locked.url);
      const dialog = page.getByRole('dialog', { name: 'API key' });
      await dialog.getByLabel('API key').fill('wrong');
      await dialog.getByRole('button', { name: 'Continue' }).click();
      await dialog.getByText('does not accept this key').waitFor();
      await dialog.getByLabel('API key').fill('open sesame');
      await dialog.getByRole('button', { name: 'Continue' }).click();
      await page.locator('[data-worker="sd"][data-state="ready"]').waitFor();
      await page.reload();
      await page.locator('[data-worker="sd"][data-state="ready"]').waitFor();
      assert.equal(await dialog.count(), 0);
      clean(page);
    } finally {
      await locked.close();
    }
  });
});

describe('the gallery', () => {
  async function ensurePictures(page) {
    if (await pictures()) return;
    await small(page, 2);
    await ui(page).prompt.fill('misty mountains');
    await ui(page).generate.click();
    await ui(page).result.waitFor();
  }

  it('opens a picture, walks with the arrows, reuses parameters, deletes', async () => {
    const page = await open();
    await ensurePictures(page);
    await page.getByRole('link', { name: 'Gallery' }).first().click();
    await page.locator('[data-picture]').first().waitFor();
    await page.waitForLoadState('networkidle').catch(() => {});
    await shot(page, 'gallery');
    await page.locator('[data-picture]').first().click();
    const viewer = page.getByRole('dialog');
    await viewer.getByRole('button', { name: 'Use parameters' }).waitFor();
    await viewer.locator('.stage img').evaluate((img) => img.decode());
    await shot(page, 'gallery-viewer');
    const text = await viewer.locator('section:not([aria-label])').first().locator('p').textContent();
    await viewer.getByRole('button', { name: 'Use parameters' }).click();
    await viewer.waitFor({ state: 'detached' });
    assert.equal(await ui(page).prompt.inputValue(), text);
    assert.match(await page.getByLabel('Seed', { exact: true }).inputValue(), /^\d+$/);

    await page.keyboard.press('Alt+2');
    await page.locator('[data-picture]').first().click();
    const had = await pictures();
    if (had > 1) {
      const first = await viewer.getByText(/^Picture /).textContent();
      await page.keyboard.press('ArrowRight');
      await viewer.getByText(first, { exact: true }).waitFor({ state: 'detached' });
    }
    await viewer.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Keep' }).click();
    assert.equal(await pictures(), had);
    await viewer.getByRole('button', { name: 'Delete' }).click();
    await page.getByRole('alertdialog').getByRole('button', { name: 'Delete' }).click();
    await page.getByText(`${had - 1} picture`).waitFor();
    assert.equal(await pictures(), had - 1);
    if (await viewer.isVisible()) await page.keyboard.press('Escape');
    await viewer.waitFor({ state: 'detached' });
    clean(page);
  });

  it('searches, and scrolls without an end', { skip: real && 'needs many pictures' }, async () => {
    const page = await open({ path: '/gallery', size: { width: 1000, height: 600 } });
    await page.locator('[data-picture]').first().waitFor();
    const cards = page.locator('[data-picture]');
    const total = await pictures();
    for (let i = 0; i < 300 && (await cards.count()) < total; i++) {
      await page.locator('.scroll').evaluate((el) => el.scrollTo(0, el.scrollHeight));
      await page.waitForTimeout(50);
    }
    assert.equal(await cards.count(), total);
    await page.keyboard.press('/');
    await page.keyboard.type('lighthouse');
    // The page may search for the first letters while the others are typed: wait for the answer to the whole word.
    const found = (await call('GET', '/v1/history/images?limit=1&q=lighthouse')).total;
    assert.ok(found > 1 && found < total);
    await page.getByText(`${found} pictures`, { exact: true }).waitFor();
    assert.equal(await cards.count(), found);
    for (const name of await cards.evaluateAll((all) => all.map((c) => c.getAttribute('aria-label'))))
      assert.match(name, /lighthouse/);
    clean(page);
  });

  it('sends a picture to image to image', async () => {
    const page = await open();
    await ensurePictures(page);
    await ui(page).result.waitFor();
    await page.getByRole('button', { name: 'Send to image to image' }).click();
    await page.getByAltText('The picture to start from').waitFor();
    await small(page, 4);
    await ui(page).prompt.fill('the same in winter');
    await shot(page, 'image-to-image');
    await ui(page).generate.click();
    await page.locator('[data-job]').waitFor();
    await ui(page).generate.filter({ hasText: 'Generate' }).waitFor();
    const job = (await call('GET', '/v1/jobs?limit=1')).data[0];
    assert.equal(job.type, 'img2img');
    assert.equal(job.status, 'done');
    clean(page);
  });

  it('a mask is painted, erased and taken back, with pointer and keyboard, and goes with the picture', async () => {
    const page = await open();
    await ensurePictures(page);
    await ui(page).result.waitFor();
    await page.getByRole('button', { name: 'Send to image to image' }).click();
    await page.getByRole('button', { name: 'Paint a mask' }).click();
    const canvas = page.getByRole('application', { name: /^Mask/ });
    await canvas.waitFor();
    /** How many pixels of the canvas are painted. */
    const painted = () =>
      canvas.evaluate((c) => {
        const { data } = c.getContext('2d').getImageData(0, 0, c.width, c.height);
        return data.filter((v, i) => i % 4 === 3 && v > 0).length;
      });
    const { x, y, width, height } = await canvas.boundingBox();
    const drag = async (from, to) => {
      await page.mouse.move(x + width * from, y + height * 0.4);
      await page.mouse.down();
      await page.mouse.move(x + width * to, y + height * 0.6, { steps: 4 });
      await page.mouse.up();
    };
    assert.equal(await painted(), 0);
    await drag(0.2, 0.7);
    const line = await painted();
    assert.ok(line > 1000, `${line} pixels`);
    await page.getByRole('button', { name: 'Eraser' }).click();
    await drag(0.2, 0.4);
    const rest = await painted();
    assert.ok(rest < line && rest > 0, `${rest} of ${line}`);
    await page.getByRole('button', { name: 'Undo' }).click();
    assert.equal(await painted(), line);
    await page.getByRole('button', { name: 'Redo' }).click();
    assert.equal(await painted(), rest);
    await page.getByRole('button', { name: 'Clear the mask' }).click();
    assert.equal(await painted(), 0);
    await canvas.focus();
    for (const key of ['b', 'ArrowRight', ' ', 'Shift+ArrowDown', ' ']) await page.keyboard.press(key);
    const typed = await painted();
    assert.ok(typed > 1000, `${typed} pixels with the keyboard`);
    await page.keyboard.press('Control+z');
    assert.equal(await painted(), 0);
    await page.keyboard.press('Control+Shift+z');
    assert.equal(await painted(), typed);
    await drag(0.3, 0.6);
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'mask');
    await page.getByRole('button', { name: 'Done' }).click();
    await page.getByRole('button', { name: 'Change the mask' }).waitFor();
    await page.getByRole('button', { name: 'Only masked' }).click();
    await page.getByRole('button', { name: 'Extend the picture' }).click();
    await page.getByRole('spinbutton', { name: 'Right' }).fill('60');
    await page.getByRole('spinbutton', { name: 'Right' }).blur();
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'inpaint');
    await small(page, 4);
    await ui(page).prompt.fill('the same with a boat');
    await ui(page).generate.click();
    const job = await over('the same with a boat');
    assert.equal(job.status, 'done', JSON.stringify(job.error));
    assert.equal(job.params.inpaint_area, 'masked');
    assert.equal(job.params.outpaint.right, 64, 'a multiple of 8');
    assert.match(job.params.mask, /^upload:/);
    clean(page);
  });

  it('hires fix makes a larger picture', async () => {
    const page = await open();
    const { prompt, generate } = ui(page);
    await small(page, 3);
    await page.getByRole('button', { name: 'Text to image' }).click();
    await page.getByRole('checkbox', { name: /Hires fix/ }).check();
    await page.getByRole('spinbutton', { name: 'Enlarge' }).fill('1.5');
    await page.getByRole('spinbutton', { name: 'Enlarge' }).blur();
    const size = page.getByText(`${SIZE * 1.5} × ${SIZE * 1.5}`, { exact: true });
    await size.waitFor();
    await page.getByRole('button', { name: 'Resize to' }).click(); // begins with the size that the factor gave
    assert.equal(await page.getByLabel('Hires width').inputValue(), `${SIZE * 1.5}`);
    await page.getByLabel('Hires height').fill('');
    await page.getByLabel('Hires height').blur(); // follows from the width
    await size.waitFor();
    if (!real) {
      await page.getByRole('combobox', { name: 'Upscaler' }).click();
      await page.getByRole('option', { name: 'RealESRGAN_x4plus' }).click();
    }
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'hires');
    await prompt.fill('a tower');
    await generate.click();
    const job = await over('a tower');
    assert.equal(job.status, 'done', JSON.stringify(job.error));
    assert.deepEqual(job.params.hires, {
      width: SIZE * 1.5,
      strength: 0.7,
      ...(real ? { upscaler: 'latent' } : { upscaler: 'upscalers/RealESRGAN_x4plus.pth', steps: 0 }),
    });
    assert.deepEqual([job.results[0].width, job.results[0].height], [SIZE * 1.5, SIZE * 1.5]);
    clean(page);
  });

  /** Drops a black square on a field. */
  const dropSquare = (field) =>
    field.evaluate(async (target) => {
      const canvas = new OffscreenCanvas(64, 64);
      canvas.getContext('2d').fillRect(16, 16, 32, 32);
      const data = new DataTransfer();
      data.items.add(new File([await canvas.convertToBlob()], 'square.png', { type: 'image/png' }));
      target.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    });
  /** Uses the parameters of a job's picture. */
  async function again(page, job) {
    const recent = page.getByRole('region', { name: 'Recent pictures' });
    await recent.getByRole('button', { name: job.params.prompt, exact: true }).first().click();
    await page.getByRole('button', { name: 'Use its parameters' }).click();
  }
  async function type(scope, name, value) {
    const field = scope.getByRole('spinbutton', { name, exact: true });
    await field.fill(String(value));
    await field.blur();
  }
  it('ControlNets follow dropped pictures, each in its own way', async () => {
    const page = await open();
    await small(page, 3);
    await page.getByRole('button', { name: 'Text to image' }).click();
    await page.getByRole('button', { name: 'ControlNet', exact: true }).click();
    const first = page.getByRole('group', { name: 'ControlNet with the control picture', exact: true });
    const second = page.getByRole('group', { name: 'ControlNet with the control picture 2' });
    await dropSquare(first.getByRole('button', { name: 'Choose a picture to follow' }));
    await first.getByAltText('The picture that the ControlNet follows').waitFor();
    assert.equal(await page.getByAltText('The picture to start from').count(), 0, 'it is no start of image to image');
    await type(first, 'Control weight', 0.8);
    await first.getByRole('button', { name: 'When and how' }).click();
    await type(first, 'Control until', 0.5);
    await type(first, 'Low threshold', 40);
    await first.getByRole('combobox', { name: 'Whose say counts more' }).click();
    await page.getByRole('option', { name: 'The prompt' }).click();
    await page.getByRole('button', { name: 'Another ControlNet' }).click();
    await dropSquare(second.getByRole('button', { name: 'Choose a picture to follow' }));
    await second.getByRole('checkbox', { name: 'Find its edges' }).uncheck();
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'controlnet');
    await ui(page).prompt.fill('a house with a square roof');
    await ui(page).generate.click();
    const job = await over('a house with a square roof');
    assert.equal(job.status, 'done', JSON.stringify(job.error));
    const [one, two, ...others] = job.params.controlnet;
    assert.deepEqual(others, []);
    assert.deepEqual([one.weight, one.preprocessor, one.end, one.mode], [0.8, 'canny', 0.5, 'prompt']);
    assert.deepEqual([one.low_threshold, one.high_threshold], [40, 200]);
    assert.equal(two.preprocessor, 'none');
    for (const c of [one, two]) {
      assert.match(c.image, /^upload:/);
      assert.match(c.model, /^controlnet\//);
    }
    await second.getByRole('button', { name: 'Remove the ControlNet of the control picture 2' }).click();
    await page.getByRole('button', { name: 'Remove the control picture' }).click();
    await ui(page).prompt.fill('a house without one');
    await ui(page).generate.click();
    assert.equal((await over('a house without one')).params.controlnet, undefined);
    await again(page, job);
    await first.getByAltText('The picture that the ControlNet follows').waitFor();
    await second.getByAltText('The picture that the ControlNet follows').waitFor();
    assert.equal(await first.getByRole('spinbutton', { name: 'Control weight' }).inputValue(), '0.8');
    await ui(page).prompt.fill('the same house');
    await ui(page).generate.click();
    assert.deepEqual((await over('the same house')).params.controlnet, job.params.controlnet);
    clean(page);
  });

  it('a picture is a prompt', async () => {
    const page = await open();
    await small(page, 3);
    await page.getByRole('button', { name: 'Text to image' }).click();
    await page.getByRole('button', { name: 'Picture as prompt', exact: true }).click();
    await dropSquare(page.getByRole('button', { name: 'Choose a picture to take up' }));
    await page.getByAltText('The picture that is a prompt').waitFor();
    assert.equal(await page.getByAltText('The picture to start from').count(), 0, 'it is no start of image to image');
    await type(page, 'Picture weight', 0.6);
    await type(page, 'Picture until', 0.9);
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'picture-as-prompt');
    await ui(page).prompt.fill('a dark room');
    await ui(page).generate.click();
    const job = await over('a dark room');
    assert.equal(job.status, 'done', JSON.stringify(job.error));
    const given = job.params.ip_adapter;
    assert.deepEqual([given.weight, given.start, given.end], [0.6, 0, 0.9]);
    assert.match(given.image, /^upload:/);
    assert.match(given.model, /^ipadapter\//);
    assert.match(given.clip_vision, /^clip_vision\//);
    await page.getByRole('button', { name: 'Remove the prompt picture' }).click();
    await ui(page).prompt.fill('a dark room without it');
    await ui(page).generate.click();
    assert.equal((await over('a dark room without it')).params.ip_adapter, undefined);
    await page.route('**/v1/uploads/**', (route) =>
      route.fulfill({ status: 404, json: { error: { message: 'gone' } } }),
    );
    await again(page, job);
    const adapter = /([^/]+)\.safetensors$/.exec(given.model)[1];
    await page.getByRole('status').getByText(`${adapter}: its picture is no longer on the server.`).waitFor();
    assert.equal(await page.getByRole('spinbutton', { name: 'Picture weight' }).inputValue(), '0.6');
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'picture-gone');
    clean(page);
  });

  it('guidance, variations and noise are set under Advanced, and come back from the picture', async () => {
    const page = await open();
    const { prompt, generate } = ui(page);
    await small(page, 4);
    await page.getByRole('button', { name: 'Text to image' }).click();
    await page.getByRole('button', { name: 'Advanced' }).click();
    for (const name of ['Guidance', 'Variation', 'Noise of the steps'])
      await page.getByRole('button', { name, exact: true }).click();
    const wanted = {
      guidance_rescale: ['CFG rescale', 0.7],
      guidance_end: ['Guided until', 0.75],
      dynamic_threshold: ['Dynamic threshold', 0.99],
      subseed: ['Variation seed', 7],
      subseed_strength: ['Variation strength', 0.25],
      seed_resize_from_w: ['Seed’s own width', SIZE],
      seed_resize_from_h: ['Seed’s own height', SIZE],
      eta: ['Eta', 0.5],
      s_noise: ['Noise multiplier', 1.01],
      eta_noise_seed_delta: ['Noise seed delta (ENSD)', 31337],
    };
    for (const [name, value] of Object.values(wanted)) await type(page, name, value);
    assert.deepEqual(await accessibility(page), []);
    await page.getByRole('spinbutton', { name: 'Noise seed delta (ENSD)' }).scrollIntoViewIfNeeded();
    await shot(page, 'sampling');
    await prompt.fill('a boat in the mist');
    await generate.click();
    const job = await over('a boat in the mist');
    assert.equal(job.status, 'done', JSON.stringify(job.error));
    for (const [key, [, value]] of Object.entries(wanted)) assert.equal(job.params[key], value, key);
    for (const name of ['Dynamic threshold', 'Variation seed', 'Eta', 'Noise seed delta (ENSD)'])
      await type(page, name, '');
    await type(page, 'CFG rescale', 0.1);
    await page.locator('.bar').getByText('a boat in the mist').waitFor();
    await page.getByRole('button', { name: 'Use its parameters' }).click();
    for (const [name, value] of Object.values(wanted))
      assert.equal(await page.getByRole('spinbutton', { name, exact: true }).inputValue(), String(value), name);
    clean(page);
  });

  it('reads the parameters of a dropped picture back', async () => {
    const page = await open();
    await ensurePictures(page);
    const picture = (await call('GET', '/v1/history/images?limit=1')).data[0];
    await page.evaluate(async (url) => {
      const blob = await (await fetch(url)).blob();
      const data = new DataTransfer();
      data.items.add(new File([blob], 'dropped.png', { type: 'image/png' }));
      dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
    }, picture.url);
    const dialog = page.getByRole('dialog', { name: 'This picture carries its parameters' });
    await dialog.waitFor();
    await shot(page, 'dropped');
    await dialog.getByRole('button', { name: 'Use its parameters' }).click();
    assert.equal(await ui(page).prompt.inputValue(), picture.prompt);
    assert.equal(await page.getByLabel('Seed', { exact: true }).inputValue(), String(picture.seed));
    clean(page);
  });

  it('enlarges a picture, and says by what', { skip: real && 'the tiny models have no upscaler' }, async () => {
    const page = await open({ path: '/gallery' });
    await ensurePictures(page);
    const before = (await call('GET', '/v1/history/images?limit=1')).data[0];
    await page.locator(`[data-picture="${before.id}"]`).click();
    const field = page.getByRole('region', { name: 'Upscale' });
    await field.getByRole('combobox', { name: 'Upscaler' }).click();
    await page.getByRole('option', { name: 'anime-x2' }).click();
    await field.getByRole('button', { name: '4×', exact: true }).click();
    await field.getByText(`${before.width * 4} × ${before.height * 4}`).waitFor();
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'upscale');
    await field.getByRole('button', { name: 'Upscale' }).click();
    let made = before;
    while (made.id === before.id) made = (await call('GET', '/v1/history/images?limit=1')).data[0];
    await ui(page).result.waitFor();
    assert.deepEqual([made.width, made.height, made.params.type], [before.width * 4, before.height * 4, 'upscale']);
    await ui(page).result.click();
    const viewer = page.getByRole('dialog');
    await viewer.getByText('anime-x2').first().waitFor();
    await viewer.getByRole('button', { name: 'Use parameters' }).click(); // those of the small one
    assert.equal(await page.getByLabel('Width', { exact: true }).inputValue(), String(before.params.width));
    clean(page);
  });
});
