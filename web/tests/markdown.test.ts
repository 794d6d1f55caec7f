import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BlockStream, type Block } from '@/markdown/blocks'
import { canonicalLanguage, highlightToHtml, loadLanguage } from '@/markdown/highlight'
import { loadMath } from '@/markdown/math'
import { parser } from '@/markdown/parser'
import { renderTokens } from '@/markdown/render'

const env = { copyLabel: 'Copy' }
// Compared before the sanitizer, which works block by block anyway and is slow outside of a browser.
const htmlOf = (blocks: Block[]) => blocks.map(({ tokens }) => parser.renderer.render(tokens, parser.options, env)).join('')
const raw = (source: string) => htmlOf([{ tokens: parser.parse(source.replace(/\r\n?/g, '\n'), {}), fence: null }])
const whole = (source: string) => renderTokens(parser.parse(source.replace(/\r\n?/g, '\n'), {}), env)

/** Pieces that begin, continue, interrupt and end blocks; glued without separators they meet in every way. */
const PIECES = [
  'word', '词语', ' ', '  ', '    ', '\n', '\n\n', '# ', '## t', '- ', '* ', '+ x', '1. ', '2) b', '> ', '---', '***',
  '===', '```', '```js\n', '~~~', '$$', '$x$', '\\[', '\\]', '|', 'a|b\n-|-\n', '\na|b\n-|-', '|-|-|', ':-:', '**b**', '`c`', '<b>', '\\',
  '\r\n', '![i](u)', '[l](u)', '\t', '$', '0', '_', 'x\n',
] // prettier-ignore

const document = fc.array(fc.constantFrom(...PIECES), { maxLength: 40 }).map((pieces) => pieces.join(''))

describe('incremental Markdown', () => {
  it('equals the whole at every step, however the text is cut', () => {
    fc.assert(
      fc.property(document, fc.array(fc.nat({ max: 12 }), { maxLength: 30 }), (source, cuts) => {
        const stream = new BlockStream()
        let at = 0
        for (const cut of cuts) {
          at = Math.min(source.length, at + cut)
          const prefix = source.slice(0, at)
          expect(htmlOf(stream.update(prefix, false))).toBe(raw(prefix))
        }
        expect(htmlOf(stream.update(source, true))).toBe(raw(source))
      }),
      { numRuns: 600 },
    )
  })

  it('equals the whole at the end even when a link is defined after its use', () => {
    const source = 'See [the manual][m].\n\nMore text.\n\nEven more.\n\n[m]: https://example.org/m\n'
    const stream = new BlockStream()
    for (let at = 0; at <= source.length; at++) stream.update(source.slice(0, at), false)
    expect(htmlOf(stream.update(source, true))).toBe(raw(source))
    expect(htmlOf(stream.update(source, true))).toContain('href="https://example.org/m"')
  })

  it('does not close a paragraph before a table whose second line may still become something else', () => {
    const stream = new BlockStream()
    const source = 'word\na|b\n-|- is no table\n'
    for (let at = 0; at <= source.length; at++) {
      expect(htmlOf(stream.update(source.slice(0, at), false))).toBe(raw(source.slice(0, at)))
    }
  })

  it('keeps closed blocks as they are and parses only the open end again', () => {
    const stream = new BlockStream()
    const first = stream.update('One.\n\n```py\nprint()\n```\n\nTwo.\nThree.\n\nFo', false)
    const later = stream.update('One.\n\n```py\nprint()\n```\n\nTwo.\nThree.\n\nFour.\nFive.\n\nSix.\n', false)
    expect(first.length).toBe(4)
    expect(later[0]).toBe(first[0])
    expect(later[1]).toBe(first[1])
    expect(later[3]).not.toBe(first[3])
  })

  it('starts anew when the text is replaced by another', () => {
    const stream = new BlockStream()
    stream.update('One.\n\nTwo.\nTwo.\n\nThree.\nThree.\n', false)
    expect(htmlOf(stream.update('Other.\n\nText.', true))).toBe(raw('Other.\n\nText.'))
  })

  it('knows whether a code block is closed', () => {
    const closed = (source: string) => new BlockStream().update(source, false)[0]?.fence?.closed
    expect(closed('```py\nx = 1\n')).toBe(false)
    expect(closed('```py\nx = 1\n```')).toBe(true)
    expect(closed('```py\n```')).toBe(true)
    expect(closed('```')).toBe(false)
  })
})

describe('what an answer may do to the page', () => {
  it.each([
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    '[x](javascript:alert(1))',
    '[x](data:text/html,<script>alert(1)</script>)',
    '![x](javascript:alert(1))',
    '![x](https://example.org/pixel.png)',
    '`<b onmouseover=alert(1)>`',
    '```html\n<script>alert(1)</script>\n```',
    '$\\href{javascript:alert(1)}{x}$',
    '$\\htmlData{evil=1}{x}$',
    '$<img src=x onerror=alert(1)>$',
    '<span data-trusted="0"></span> $x$',
    '|a|\n|-|\n|<svg onload=alert(1)>|',
  ])('is nothing: %s', async (source) => {
    await loadMath()
    const host = window.document.createElement('div')
    host.innerHTML = whole(source)
    expect(host.querySelectorAll('script, img, iframe, svg[onload], form, input')).toHaveLength(0)
    for (const element of host.querySelectorAll('*')) {
      for (const { name } of element.attributes) expect(name).not.toMatch(/^on/)
    }
    for (const link of host.querySelectorAll('a')) expect(link.getAttribute('href') ?? '').not.toMatch(/^(javascript|data):/)
  })

  it('opens links apart, without telling them where the reader came from', () => {
    expect(whole('[x](https://example.org)')).toContain('rel="noopener noreferrer nofollow"')
    expect(whole('[x](https://example.org)')).toContain('target="_blank"')
  })
})

describe('the dialect', () => {
  it('sets formulas in every notation and leaves money alone', async () => {
    await loadMath()
    for (const source of ['$x^2$', '\\(x^2\\)', '$$x^2$$', '\\[x^2\\]', '$$\nx^2\n$$', '\\[\nx^2\n\\]', '- item $x$']) {
      expect(whole(source), source).toContain('class="katex"')
    }
    for (const source of ['It costs $5 and $6.', 'From $5-$6', 'a $ b $ c', '`$x$`', '\\$x\\$', '$$', '$$\n$$']) {
      expect(whole(source), source).not.toContain('class="katex"')
    }
  })

  it('shows a formula that is not finished or wrong as it was written', async () => {
    await loadMath()
    expect(whole('$$\n\\frac{1}')).toContain('\\frac{1}')
    expect(whole('$\\undefinedcommand{$')).not.toContain('class="katex"')
  })

  it('ends a formula that is never closed at the next empty line', () => {
    expect(whole('$$\nx\n\nA paragraph.')).toContain('<p>A paragraph.</p>')
  })

  it('makes Chinese bold next to Chinese punctuation', () => {
    expect(whole('**注意：**请先保存。')).toContain('<strong>注意：</strong>')
    expect(whole('这是**“重点”**内容')).toContain('<strong>“重点”</strong>')
  })

  it('does not take file names for links', () => {
    expect(whole('Open main.py and README.md')).not.toContain('<a ')
    expect(whole('See https://example.org/a.')).toContain('href="https://example.org/a"')
  })

  it('keeps the alignment of table columns', () => {
    expect(whole('|a|b|\n|-:|:-:|\n|1|2|')).toContain('data-align="right"')
  })

  it('colours code once its language is there, and escapes it before', async () => {
    expect(canonicalLanguage('PY')).toBe('python')
    expect(canonicalLanguage('constructor')).toBeNull()
    expect(highlightToHtml('a < b', 'no-such-language')).toBeNull()
    await loadLanguage('python')
    expect(highlightToHtml('x = "<b>"', 'py')).toContain('&lt;b&gt;')
    expect(whole('```py\ndef f(): pass\n```')).toContain('hljs-keyword')
  })
})
