import { describe, expect, it } from 'vitest';
import { bytes, duration, errorText, modelTitle } from '@/lib/format';
import { addTag, readTags, removeTag, setWeight, tagsOf, withLoras, withoutTags, writeTag } from '@/lib/loras';
import { carryOver, onGrid, shapeOf, SHAPES, SCALES, sized } from '@/lib/sizes';
import { adjustWeight } from '@/lib/weights';

describe('weights', () => {
  it('weighs the selected words, more and less, and drops the brackets at 1', () => {
    const up = adjustWeight('a red cat', 2, 5, 0.1);
    expect(up).toEqual({ text: 'a (red:1.1) cat', start: 3, end: 6 });
    const twice = adjustWeight(up.text, up.start, up.end, 0.1);
    expect(twice.text).toBe('a (red:1.2) cat');
    expect(adjustWeight(up.text, up.start, up.end, -0.1).text).toBe('a red cat');
    expect(adjustWeight('a red cat', 2, 5, -0.1).text).toBe('a (red:0.9) cat');
  });
  it('takes the word at the caret, and leaves an empty place alone', () => {
    expect(adjustWeight('big cat, red', 5, 5, 0.1).text).toBe('big (cat:1.1), red');
    expect(adjustWeight('a  b', 2, 2, 0.1).text).toBe('a  b');
  });
  it('stays between 0.1 and 2', () => {
    expect(adjustWeight('(x:2)', 1, 2, 0.1).text).toBe('(x:2)');
    expect(adjustWeight('(x:0.1)', 1, 2, -0.1).text).toBe('(x:0.1)');
  });
});

describe('LoRA tags', () => {
  it('are read as A1111 does', () => {
    const text = 'a <lora:one> b <lora:two words:0.8>,<lyco:x:-1:.5> <lora:n:te=0.25:unet=2> <hypernet:y:1> <lora:>';
    expect(readTags(text).map(({ name, te, unet }) => [name, te, unet])).toEqual([
      ['one', 1, 1],
      ['two words', 0.8, 0.8],
      ['x', -1, 0.5],
      ['n', 0.25, 2],
    ]);
    expect(readTags(text).map((t) => text.slice(t.start, t.end))[1]).toBe('<lora:two words:0.8>');
  });
  it('are added, weighed and removed where they stand', () => {
    let text = addTag('a cat ', writeTag('x', 1));
    expect(text).toBe('a cat <lora:x:1>');
    text = addTag(text, writeTag('y', 0.5, 0.25));
    expect(text).toBe('a cat <lora:x:1> <lora:y:0.5:0.25>');
    text = setWeight(text, readTags(text)[0]!, 0.6);
    expect(text).toBe('a cat <lora:x:0.6> <lora:y:0.5:0.25>');
    expect(removeTag(text, readTags(text)[0]!)).toBe('a cat <lora:y:0.5:0.25>');
    expect(addTag('', '<lora:x:1>')).toBe('<lora:x:1>');
    expect([withoutTags(text), tagsOf(text)]).toEqual(['a cat', '<lora:x:0.6> <lora:y:0.5:0.25>']);
    expect([withoutTags('none'), tagsOf('none')]).toEqual(['none', '']);
  });
  it('say what a list said', () => {
    expect(withLoras('a', [{ name: 'x', weight: 0.5, te_weight: 0.25 }, { name: 'y' }])).toBe(
      'a <lora:x:0.25:0.5> <lora:y:1>',
    );
    expect(withLoras('a', undefined)).toBe('a');
  });
});

describe('words', () => {
  it('writes sizes and times as people do', () => {
    expect([bytes(999), bytes(2132625918), bytes(37861176)]).toEqual(['999 B', '2.1 GB', '37.9 MB']);
    expect([duration(900), duration(75_000), duration(4_000_000)]).toEqual(['1 s', '1:15 min', '1:06 h']);
    expect(modelTitle('sub/x.y.safetensors')).toBe('x.y');
  });
  it('reads an error in both of its shapes', () => {
    expect([errorText('a'), errorText({ message: 'b' }), errorText(null)]).toEqual(['a', 'b', '']);
  });
});

describe('sizes', () => {
  const square = (side: number) => ({ width: side, height: side });
  it("are the model's own, times 1, 1.5 and 2", () => {
    expect(SCALES.map(([, times]) => sized(square(512), 1, 1, times))).toEqual([
      [512, 512],
      [768, 768],
      [1024, 1024],
    ]);
    expect(SCALES.map(([, times]) => sized(square(128), 4, 3, times))).toEqual([
      [144, 112],
      [224, 160],
      [288, 224],
    ]);
  });
  it.each([128, 512, 768, 1024])('every shape at %i pixels has a size of its own, and is found again', (side) => {
    for (const [, times] of SCALES) {
      const all = SHAPES.map(([, w, h]) => sized(square(side), w, h, times));
      expect(new Set(all.map(String)).size).toBe(SHAPES.length);
      expect(all.map(([w, h]) => shapeOf(square(side), w, h)?.[0])).toEqual(SHAPES.map(([name]) => name));
      for (const [w, h] of all) expect(w % 8 || h % 8).toBe(0);
    }
  });
  it('stay within what the server takes', () => {
    expect([onGrid(3), onGrid(99999), onGrid(100)]).toEqual([64, 4096, 104]);
    expect(sized(square(64), 16, 9, 1)).toEqual([88, 64]);
  });
  it('are carried over to another model when they were chosen for the old one', () => {
    expect(carryOver(square(512), square(128), 512, 512)).toEqual([128, 128]);
    expect(carryOver(square(128), square(512), 288, 224)).toEqual(sized(square(512), 4, 3, 2));
    expect(carryOver(square(512), { width: 512, height: 768 }, 512, 512)).toEqual([512, 768]);
    expect(carryOver({ width: 512, height: 768 }, square(128), 512, 768)).toEqual([128, 128]);
  });
  it('stay when they were typed', () => {
    expect(carryOver(square(128), square(512), 512, 512)).toEqual([512, 512]);
    expect(carryOver(square(512), square(128), 1000, 200)).toEqual([1000, 200]);
  });
});
