/** From parsed Markdown to HTML that may be put on the page. `html: false` is the wall, DOMPurify the second wall. */
import DOMPurify from 'dompurify'
import type { Token } from 'markdown-it'
import { parser, type RenderEnv } from './parser'
import { withTrusted } from './trusted'

const ALLOWED = {
  USE_PROFILES: { html: true },
  ADD_ATTR: ['target', 'data-copy', 'data-trusted'],
  FORBID_TAGS: ['style', 'form', 'input', 'textarea', 'select', 'img', 'video', 'audio', 'iframe'],
  FORBID_ATTR: ['style'],
}

export function renderTokens(tokens: Token[], env: RenderEnv): string {
  return withTrusted(
    () => parser.renderer.render(tokens, parser.options, env),
    (html) => DOMPurify.sanitize(html, ALLOWED),
  )
}
