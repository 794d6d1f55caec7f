/** The Markdown dialect of answers: CommonMark with tables, strikethrough, bare links, single line breaks and LaTeX. */
import createMarkdownIt from 'markdown-it'
import type { Env, MarkdownIt, Token } from 'markdown-it'
import cjkFriendly from 'markdown-it-cjk-friendly'
import { highlightToHtml } from './highlight'
import { mathPlugin, renderMath } from './math'

export interface RenderEnv extends Env {
  /** The words on the button that copies a code block, in the reader's language. */
  copyLabel: string
}

function createParser(): MarkdownIt {
  const md = new createMarkdownIt({ html: false, linkify: true, breaks: true, typographer: false })
  md.use(cjkFriendly)
  md.use(mathPlugin)
  // Names of files such as main.py end like domains; only links that say so are links.
  md.linkify.set({ fuzzyLink: false, fuzzyEmail: false })
  const { escapeHtml } = md.utils

  md.renderer.rules.link_open = (tokens, index, options, _env, self) => {
    tokens[index]?.attrSet('target', '_blank')
    tokens[index]?.attrSet('rel', 'noopener noreferrer nofollow')
    return self.renderToken(tokens, index, options)
  }
  // An image would tell a stranger's server that this answer was read; it becomes a link that the reader may follow.
  md.renderer.rules.image = (tokens, index) => {
    const token = tokens[index]
    const href = String(token?.attrGet('src') ?? '')
    const label = token?.content || href
    return `<a href="${escapeHtml(href)}" target="_blank" rel="noopener noreferrer nofollow">${escapeHtml(label)}</a>`
  }
  md.renderer.rules.table_open = () => '<div class="table-scroll" tabindex="0"><table>'
  md.renderer.rules.table_close = () => '</table></div>'
  // Alignment as an attribute: the sanitizer takes every style away.
  for (const rule of ['th_open', 'td_open']) {
    md.renderer.rules[rule] = (tokens, index, options, _env, self) => {
      const token = tokens[index]
      const align = /text-align:(\w+)/.exec(String(token?.attrGet('style') ?? ''))?.[1]
      if (align) token?.attrSet('data-align', align)
      return self.renderToken(tokens, index, options)
    }
  }
  md.renderer.rules.fence = (tokens, index, _options, env) => {
    const token = tokens[index]
    return token ? codeBlock(fenceLanguage(token), token.content, env as RenderEnv) : ''
  }
  md.renderer.rules.code_block = (tokens, index, _options, env) =>
    codeBlock('', tokens[index]?.content ?? '', env as RenderEnv)
  md.renderer.rules.math_inline = (tokens, index) => renderMath(tokens[index]?.content ?? '', false)
  md.renderer.rules.math_block = (tokens, index) =>
    renderMath(tokens[index]?.content ?? '', true, tokens[index]?.meta?.closed !== false)

  function codeBlock(language: string, code: string, env: RenderEnv): string {
    return (
      `<div class="code-block"><div class="code-bar"><span>${escapeHtml(language)}</span>` +
      `<button type="button" class="code-copy" data-copy>${escapeHtml(env.copyLabel)}</button></div>` +
      `<pre tabindex="0"><code>${highlightToHtml(code, language) ?? escapeHtml(code)}</code></pre></div>`
    )
  }
  return md
}

export const parser = createParser()

export function fenceLanguage(token: Token): string {
  return token.info.trim().split(/\s+/)[0] ?? ''
}
