/**
 * LaTeX in Markdown: `$…$`, `\(…\)`, `$$…$$`, `\[…\]`. Recognises it here; KaTeX is fetched when the first formula
 * appears, and until then (or when it is wrong) the formula stands as it was written.
 */
import type { KatexOptions } from 'katex'
import type { MarkdownIt } from 'markdown-it'
import { ref } from 'vue'
import { placeTrusted } from './trusted'

type Render = (tex: string, options: KatexOptions) => string

const KATEX_OPTIONS: KatexOptions = {
  throwOnError: true,
  trust: false,
  strict: 'ignore',
  maxSize: 20,
  maxExpand: 200,
}
const CACHED_FORMULAS = 500

let render: Render | null = null
let loading: Promise<void> | null = null
const cache = new Map<string, string>()

/** Counts up when formulas can be set; whatever rendered Markdown before then must render again. */
export const mathGeneration = ref(0)

async function load(): Promise<void> {
  const [katex] = await Promise.all([import('katex'), import('katex/dist/katex.min.css')])
  render = katex.default.renderToString
  mathGeneration.value++
}

export function loadMath(): Promise<void> {
  loading ??= load().catch((error: unknown) => {
    // A chunk that could not be fetched (the server is restarting): the next formula tries again.
    loading = null
    throw error
  })
  return loading
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c] ?? c)
}

/** `closed: false` is a formula that is still being written: half of one would jump with every token. */
export function renderMath(tex: string, display: boolean, closed = true): string {
  const source = escapeHtml(tex)
  const plain = display ? `<div class="math-source">${source}</div>` : `<code class="math-source">${source}</code>`
  if (!closed || tex === '') return plain
  if (!render) {
    loadMath().catch(() => undefined)
    return plain
  }
  const key = `${display ? 'D' : 'I'}${tex}`
  const known = cache.get(key)
  if (known !== undefined) return placeTrusted(known)
  let html: string
  try {
    const set = render(tex, { ...KATEX_OPTIONS, displayMode: display })
    html = display ? `<div class="math-display" tabindex="0">${set}</div>` : set
  } catch (error) {
    if (!(error instanceof Error) || error.name !== 'ParseError') throw error
    return plain
  }
  if (cache.size >= CACHED_FORMULAS) cache.delete(cache.keys().next().value ?? '')
  cache.set(key, html)
  return placeTrusted(html)
}

export function mathPlugin(md: MarkdownIt): void {
  md.inline.ruler.before('escape', 'math_inline', (state, silent) => {
    const found = inlineMathAt(state.src, state.pos, state.posMax)
    if (!found) return false
    if (!silent) {
      const token = state.push(found.display ? 'math_block' : 'math_inline', 'math', 0)
      token.content = found.tex
      token.markup = found.display ? '$$' : '$'
    }
    state.pos = found.end
    return true
  })
  md.block.ruler.before(
    'fence',
    'math_block',
    (state, startLine, endLine, silent) => {
      const lineText = (line: number) => state.src.slice((state.bMarks[line] ?? 0) + (state.tShift[line] ?? 0), state.eMarks[line])
      if ((state.sCount[startLine] ?? 0) - state.blkIndent >= 4) return false
      const first = lineText(startLine)
      const opening = first.startsWith('$$') ? '$$' : first.startsWith('\\[') ? '\\[' : null
      if (!opening) return false
      const closing = opening === '$$' ? '$$' : '\\]'
      const rest = first.slice(2)
      // Closed on its own line: a block only if nothing follows. `$$a$$ and then …` is a paragraph.
      const closedAt = rest.indexOf(closing)
      if (closedAt >= 0 && rest.slice(closedAt + 2).trim() !== '') return false
      if (silent) return true

      const lines: string[] = []
      let line = startLine
      let closed = closedAt >= 0
      if (closedAt >= 0) {
        lines.push(rest.slice(0, closedAt))
        line++
      } else {
        lines.push(rest)
        // No formula contains an empty line: one that is never closed cannot swallow the rest of the answer.
        for (line++; line < endLine; line++) {
          const text = lineText(line)
          if (text.trim() === '' || (state.sCount[line] ?? 0) < state.blkIndent) break
          const end = text.indexOf(closing)
          if (end >= 0) {
            lines.push(text.slice(0, end))
            line++
            closed = true
            break
          }
          lines.push(text)
        }
      }
      state.line = line
      const token = state.push('math_block', 'math', 0)
      token.block = true
      token.content = lines.join('\n').trim()
      token.map = [startLine, line]
      token.markup = opening
      token.meta = { closed }
      return true
    },
    { alt: ['paragraph', 'reference', 'blockquote', 'list'] },
  )
}

interface InlineMath {
  tex: string
  end: number
  display: boolean
}

function inlineMathAt(src: string, pos: number, max: number): InlineMath | null {
  if (src.startsWith('\\(', pos) || src.startsWith('\\[', pos)) {
    const display = src[pos + 1] === '['
    return delimited(src, pos, max, 2, display ? '\\]' : '\\)', display)
  }
  if (src[pos] !== '$') return null
  if (src[pos + 1] === '$') return delimited(src, pos, max, 2, '$$', true)
  // As in Pandoc: no space inside the dollars, no digit after, so that "$5 or $6" stays money.
  if (/\s/.test(src[pos + 1] ?? ' ')) return null
  for (let end = src.indexOf('$', pos + 1); end > 0 && end < max; end = src.indexOf('$', end + 1)) {
    if (src[end - 1] === '\\') continue
    if (/\s/.test(src[end - 1] ?? ' ') || /\d/.test(src[end + 1] ?? '')) return null
    return { tex: src.slice(pos + 1, end), end: end + 1, display: false }
  }
  return null
}

function delimited(src: string, pos: number, max: number, skip: number, closing: string, display: boolean): InlineMath | null {
  const end = src.indexOf(closing, pos + skip)
  if (end < 0 || end + closing.length > max) return null
  const tex = src.slice(pos + skip, end).trim()
  return tex === '' ? null : { tex, end: end + closing.length, display }
}
