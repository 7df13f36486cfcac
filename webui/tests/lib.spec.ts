import { describe, expect, it } from 'vitest';
import { bytes, duration, errorText, modelTitle } from '@/lib/format';
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
