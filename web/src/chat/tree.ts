/** Branches of a conversation: messages form a tree, and one path through it is on show. Pure functions. */
import type { Message } from '@/api/types'
import { compareText, compareTimes } from './order'

export interface Branches {
  /** Place of this message among its siblings, from 1. */
  index: number
  count: number
  previous: string | null
  next: string | null
}

/** Oldest first; ids break ties, so that every tab sees one order. */
function byAge(a: Message, b: Message): number {
  return compareTimes(a.created_at, b.created_at) || compareText(a.id, b.id)
}

export function childrenOf(messages: Iterable<Message>, parentId: string | null): Message[] {
  return [...messages].filter((message) => message.parent_id === parentId).sort(byAge)
}

function indexChildren(messages: Iterable<Message>): Map<string | null, Message[]> {
  const children = new Map<string | null, Message[]>()
  for (const message of messages) {
    const list = children.get(message.parent_id)
    if (list) list.push(message)
    else children.set(message.parent_id, [message])
  }
  for (const list of children.values()) list.sort(byAge)
  return children
}

/**
 * The messages on show, from the first question on: up from the leaf to the root, then down from the leaf along the
 * newest children (an answer may be known before the leaf is told to have moved).
 */
export function pathTo(messages: ReadonlyMap<string, Message>, leafId: string | null): Message[] {
  const children = indexChildren(messages.values())
  const path: Message[] = []
  const seen = new Set<string>()
  let current = leafId === null ? undefined : messages.get(leafId)
  while (current && !seen.has(current.id)) {
    seen.add(current.id)
    path.unshift(current)
    current = current.parent_id === null ? undefined : messages.get(current.parent_id)
  }
  let newest = children.get(path.at(-1)?.id ?? null)?.at(-1)
  while (newest && !seen.has(newest.id)) {
    seen.add(newest.id)
    path.push(newest)
    newest = children.get(newest.id)?.at(-1)
  }
  return path
}

/** The leaf to show when a person steps to `messageId`: the end of its newest line. */
export function leafBelow(messages: ReadonlyMap<string, Message>, messageId: string): string {
  return pathTo(messages, messageId).at(-1)?.id ?? messageId
}

export function branchesOf(messages: ReadonlyMap<string, Message>, message: Message): Branches {
  const siblings = childrenOf(messages.values(), message.parent_id).filter(({ role }) => role === message.role)
  const at = siblings.findIndex(({ id }) => id === message.id)
  return {
    index: at + 1,
    count: siblings.length,
    previous: siblings[at - 1]?.id ?? null,
    next: siblings[at + 1]?.id ?? null,
  }
}
