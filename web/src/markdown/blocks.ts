/**
 * Splits streamed Markdown into top-level blocks, so that a growing answer re-parses only its open end.
 *
 * A block is closed when another begins after it and no later character can undo that beginning. Everything that
 * begins a block is decided by its own line, except a table, which needs the line below its head as well: so the two
 * lines at the next block's start must be complete. Link definitions act backwards; an answer that has any is parsed
 * once more, whole, when it is done.
 */
import type { Token } from 'markdown-it'
import { fenceLanguage, parser } from './parser'

export interface Block {
  tokens: Token[]
  /** Set for a fenced code block at top level, which the page shows by a component of its own. */
  fence: { language: string; code: string; closed: boolean } | null
}

const DEFINITION = /^ {0,3}\[[^\]]+\]:/m

export class BlockStream {
  private frozen: Block[] = []
  private frozenSource = ''
  private last: { source: string; done: boolean; blocks: Block[] } | null = null

  /** All blocks of `source`. Closed blocks are the same objects from call to call as long as the text only grows. */
  update(text: string, done: boolean): Block[] {
    const source = text.replace(/\r\n?/g, '\n')
    if (this.last?.source === source && this.last.done === done) return this.last.blocks
    if (!source.startsWith(this.frozenSource) || (done && DEFINITION.test(source))) {
      this.frozen = []
      this.frozenSource = ''
    }
    const tail = source.slice(this.frozenSource.length)
    const open = splitBlocks(parser.parse(tail, {}))
    const blocks = [...this.frozen, ...open.map(({ block }) => block)]
    this.last = { source, done, blocks }
    // Only while it grows: freezing what has been parsed whole would gain nothing.
    if (!done) this.freeze(tail, open)
    return blocks
  }

  private freeze(tail: string, open: { block: Block; line: number }[]): void {
    const starts = lineStarts(tail)
    const completeLines = starts.length - 1
    for (let next = open.length - 1; next > 0; next--) {
      const line = open[next]?.line ?? 0
      if (line + 2 > completeLines) continue
      this.frozen = [...this.frozen, ...open.slice(0, next).map(({ block }) => block)]
      this.frozenSource += tail.slice(0, starts[line])
      return
    }
  }
}

/** Offsets at which lines begin; the last entry is the line that is still being written (perhaps empty). */
function lineStarts(text: string): number[] {
  const starts = [0]
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) starts.push(at + 1)
  return starts
}

function splitBlocks(tokens: Token[]): { block: Block; line: number }[] {
  const blocks: { block: Block; line: number }[] = []
  let current: Token[] = []
  let depth = 0
  for (const token of tokens) {
    current.push(token)
    depth += token.nesting
    if (depth > 0) continue
    blocks.push({ block: { tokens: current, fence: fenceOf(current) }, line: current[0]?.map?.[0] ?? 0 })
    current = []
  }
  return blocks
}

function fenceOf(tokens: Token[]): Block['fence'] {
  const token = tokens[0]
  if (token?.type !== 'fence' || !token.map) return null
  const contentLines = token.content.split('\n').length - 1
  const closed = token.map[1] - token.map[0] === contentLines + 2
  return { language: fenceLanguage(token), code: token.content.replace(/\n$/, ''), closed }
}
