/** Groups conversations by the day of their last change, in the reader's own time zone. */
import type { Conversation } from '@/api/types'
import { compareText, compareTimes } from './order'

export type DayGroup =
  | { kind: 'pinned' | 'today' | 'yesterday' | 'week' | 'month'; items: Conversation[] }
  | { kind: 'older'; month: Date; items: Conversation[] }

const DAY_MS = 86_400_000

/** Whole days between two moments as a calendar counts them; noon avoids the hours that summer time moves. */
export function daysBetween(from: Date, to: Date): number {
  const noon = (date: Date) => new Date(date.getFullYear(), date.getMonth(), date.getDate(), 12).getTime()
  return Math.round((noon(to) - noon(from)) / DAY_MS)
}

/** Pinned first, then newest first: the order of the server's list. */
export function inListOrder(a: Conversation, b: Conversation): number {
  return Number(b.pinned) - Number(a.pinned) || compareTimes(b.updated_at, a.updated_at) || compareText(b.id, a.id)
}

export function groupByDay(conversations: readonly Conversation[], now: Date): DayGroup[] {
  const groups = new Map<string, DayGroup>()
  for (const conversation of [...conversations].sort(inListOrder)) {
    const group = groupOf(conversation, now)
    const key = group.kind === 'older' ? group.month.toISOString() : group.kind
    const known = groups.get(key)
    if (known) known.items.push(conversation)
    else groups.set(key, { ...group, items: [conversation] })
  }
  return [...groups.values()]
}

function groupOf(conversation: Conversation, now: Date): DayGroup {
  if (conversation.pinned) return { kind: 'pinned', items: [] }
  const updated = new Date(conversation.updated_at)
  const days = daysBetween(updated, now)
  if (days <= 0) return { kind: 'today', items: [] }
  if (days === 1) return { kind: 'yesterday', items: [] }
  if (days <= 7) return { kind: 'week', items: [] }
  if (days <= 30) return { kind: 'month', items: [] }
  return { kind: 'older', month: new Date(updated.getFullYear(), updated.getMonth(), 1), items: [] }
}
