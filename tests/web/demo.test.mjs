// The page of somebody who has no model and no picture yet: against the mock, and against the real programs with the
// models that the studio brings along.
import assert from 'node:assert/strict';
import { after, afterEach, before, describe, it } from 'node:test';
import { assertRedOnBlue } from '../e2e/picture.mjs';
import { demoModels, Studio, until } from '../e2e/studio.mjs';
import { accessibility, PHONE, shot, startBrowser } from './browser.mjs';
import { makeMock } from './mock-server.mjs';

let browser;
before(async () => (browser = await startBrowser()));
afterEach(() => browser.closePages());
after(() => browser?.close());

const examples = (page) => page.getByRole('button', { name: /^(a|the|two|dunes)\b/ });
const about = (page) => page.getByText('small demo models').filter({ visible: true });
const made = (page) => page.getByRole('button', { name: 'Open in full view' });
const clean = (page) => assert.deepEqual(page.errors, []);
const size = async (page) => [
  await page.getByLabel('Width', { exact: true }).inputValue(),
  await page.getByLabel('Height', { exact: true }).inputValue(),
];

describe('the first screen', () => {
  let mock, url;
  async function serve(options) {
    mock = makeMock({ pictures: 0, stepMs: 20, ...options });
    url = await mock.listen(0);
  }
  afterEach(() => mock.close());

  it('offers what the demo model can do, and says what it is', async () => {
    await serve({ demo: true });
    const page = await browser.open(url);
    await about(page).waitFor();
    assert.equal(await examples(page).count(), 3);
    assert.deepEqual(await size(page), ['128', '128']);
    assert.match(await page.getByLabel('Prompt', { exact: true }).getAttribute('placeholder'), /a quiet valley/);
    await page.getByLabel('Shape 4:3').click();
    assert.deepEqual(await size(page), ['144', '112']);
    await page.getByLabel('About 256 pixels a side').click();
    assert.deepEqual(await size(page), ['288', '224']);
    assert.deepEqual(await accessibility(page), []);
    await shot(page, 'first-demo');
    clean(page);
  });

  it('a model of his own is one click away, and brings its own sizes', async () => {
    await serve({ demo: true });
    const page = await browser.open(url);
    await page.getByRole('button', { name: 'Load dreamshaper_8' }).click();
    await page.getByRole('heading', { name: 'No picture yet' }).waitFor();
    await page.getByRole('button', { name: 'Image model: dreamshaper_8' }).waitFor();
    assert.deepEqual(await size(page), ['512', '512']);
    assert.equal(await page.getByText('small demo models').count(), 0);
    clean(page);
  });

  it('without a loaded model it offers those that there are, the own ones first', async () => {
    await serve({ loaded: false });
    const page = await browser.open(url);
    await page.getByRole('heading', { name: 'No image model is loaded' }).waitFor();
    const names = await page.locator('.canvas .first button').allTextContents();
    assert.deepEqual(
      names.map((n) => n.trim()),
      ['dreamshaper_8', 'v1-5-pruned-emaonly', 'broken', 'picture'].map((n) => `Load ${n}`),
    );
    await shot(page, 'first-no-model');
    await page.getByRole('button', { name: 'Load v1-5-pruned-emaonly' }).click();
    await page.getByRole('heading', { name: 'No picture yet' }).waitFor();
    clean(page);
  });

  for (const [name, dark] of [
    ['light', false],
    ['dark', true],
  ])
    it(`at phone width, ${name}: an example becomes a picture`, async () => {
      await serve({ demo: true });
      const page = await browser.open(url, { size: PHONE, dark });
      await about(page).waitFor();
      await shot(page, `phone-first-${name}`);
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth - innerWidth)) <= 0);
      await examples(page).first().click();
      await made(page).waitFor();
      clean(page);
    });
});

const shipped = demoModels();
describe('the real programs with the demo models', { skip: shipped.missing }, () => {
  let studio;
  before(async () => {
    studio = await Studio.start({ models: false, link: shipped.link });
    await studio.loaded();
  });
  after(async () => {
    await studio?.stop();
    await studio?.cleanup();
  });

  it('an example becomes a picture with one click, and the wand makes it richer', async () => {
    const page = await browser.open(studio.base);
    page.setDefaultTimeout(60_000);
    await about(page).waitFor();
    const said = (await studio.get('/v1/models')).data.find((m) => m.type === 'image').examples;
    for (const text of said) await page.getByRole('button', { name: text, exact: true }).waitFor();
    await shot(page, 'real-first-demo');
    await page.getByRole('button', { name: said[0], exact: true }).click();
    await made(page).waitFor();
    const picture = await made(page)
      .locator('img')
      .evaluate(async (img) => (await img.decode(), [img.naturalWidth, img.naturalHeight]));
    assert.deepEqual(picture, [128, 128]);
    await shot(page, 'real-demo-picture');
    const prompt = page.getByLabel('Prompt', { exact: true });
    assert.equal(await prompt.inputValue(), said[0]);
    await page.getByRole('button', { name: 'Magic Wand' }).click();
    await page.getByRole('button', { name: 'Undo' }).waitFor();
    await page.getByRole('button', { name: 'Magic Wand' }).waitFor();
    assert.ok((await prompt.inputValue()).length > said[0].length, await prompt.inputValue());
    clean(page);
  });

  it('a red circle on a blue background is that: after a crash, and through the wand', async () => {
    const page = await browser.open(studio.base);
    page.setDefaultTimeout(60_000);
    const prompt = page.getByLabel('Prompt', { exact: true });
    const newest = async () => (await studio.get('/v1/history/images?limit=1')).data[0];
    async function generate({ during = async () => {}, anywhere = false } = {}) {
      const had = (await newest())?.id;
      await page.getByRole('button', { name: 'Generate' }).click();
      await during();
      const picture = await until('a new picture', async () => {
        const p = await newest();
        return p && p.id !== had && p;
      });
      await page.locator(`img[src="${picture.url}"]`).first().waitFor();
      assertRedOnBlue(Buffer.from(await (await fetch(studio.base + picture.url)).arrayBuffer()), { anywhere });
      return picture;
    }
    await prompt.fill('a red circle on a blue background');
    await page.getByLabel('Seed', { exact: true }).fill('7');
    await generate();
    await page.getByRole('spinbutton', { name: 'Steps' }).fill('60'); // more than a fast machine makes before the kill
    await generate({
      during: async () => {
        await page
          .getByTestId('step')
          .filter({ hasText: /step ([3-9]|\d\d)\// })
          .waitFor();
        await studio.kill('sd');
        await page.locator('.toast.error').first().waitFor();
      },
    });
    await page.getByRole('button', { name: 'Magic Wand' }).click();
    await page.getByRole('button', { name: 'Undo' }).waitFor();
    await page.getByRole('button', { name: 'Magic Wand' }).waitFor();
    const { prompt: written } = await generate({ anywhere: true }); // the wand may have said where
    assert.match(written, /\bred\b/);
    assert.notEqual(written, 'a red circle on a blue background');
    await shot(page, 'real-demo-wand');
    clean(page);
  });
});
