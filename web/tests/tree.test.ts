import { describe, expect, it } from 'vitest'
import type { Conversation, Message } from '@/api/types'
import { daysBetween, groupByDay } from '@/chat/days'
import { inWords } from '@/chat/duration'
import { branchesOf, childrenOf, leafBelow, pathTo } from '@/chat/tree'

function tree(...rows: [id: string, parent: string | null][]): Map<string, Message> {
  return new Map(
    rows.map(([id, parent], index) => [
      id,
      {
        id,
        parent_id: parent,
        role: id.startsWith('q') ? 'user' : 'assistant',
        created_at: `2026-01-01T00:00:${String(index).padStart(2, '0')}Z`,
      } as Message,
    ]),
  )
}

const ids = (messages: Message[]) => messages.map(({ id }) => id)

describe('branches', () => {
  const messages = tree(['q1', null], ['a1', 'q1'], ['q2', 'a1'], ['a2', 'q2'], ['a1b', 'q1'], ['q1b', null], ['a3', 'q1b'])

  it('shows the branch that the leaf names', () => {
    expect(ids(pathTo(messages, 'a2'))).toEqual(['q1', 'a1', 'q2', 'a2'])
    expect(ids(pathTo(messages, 'a1b'))).toEqual(['q1', 'a1b'])
  })

  it('goes on to the newest below a leaf that has been answered meanwhile', () => {
    expect(ids(pathTo(messages, 'a1'))).toEqual(['q1', 'a1', 'q2', 'a2'])
    expect(ids(pathTo(messages, null))).toEqual(['q1b', 'a3'])
  })

  it('survives a leaf that is unknown and parents in a circle', () => {
    expect(ids(pathTo(messages, 'gone'))).toEqual(['q1b', 'a3'])
    expect(ids(pathTo(tree(['a', 'b'], ['b', 'a']), 'a'))).toEqual(['b', 'a'])
    expect(pathTo(new Map(), null)).toEqual([])
  })

  it('orders siblings by time, with and without fractions of a second', () => {
    const rows = tree(['q1', null], ['q2', null], ['q3', null])
    ;['2026-01-01T00:00:01.5Z', '2026-01-01T00:00:01Z', '2026-01-01T00:00:01.000001Z'].forEach((time, index) => {
      Object.assign(rows.get(`q${index + 1}`) ?? {}, { created_at: time })
    })
    expect(ids(childrenOf(rows.values(), null))).toEqual(['q2', 'q3', 'q1'])
  })

  it('counts versions and knows the neighbours', () => {
    const at = (id: string) => branchesOf(messages, messages.get(id) as Message)
    expect(at('q1')).toEqual({ index: 1, count: 2, previous: null, next: 'q1b' })
    expect(at('a1b')).toEqual({ index: 2, count: 2, previous: 'a1', next: null })
    expect(at('a2').count).toBe(1)
    expect(leafBelow(messages, 'a1')).toBe('a2')
    expect(leafBelow(messages, 'q1b')).toBe('a3')
  })
})

describe('days', () => {
  const conversation = (id: string, updated: Date, pinned = false) =>
    ({ id, pinned, updated_at: updated.toISOString() }) as Conversation
  const now = new Date(2026, 10, 22, 0, 30)
  const ago = (days: number, hours = 0) => new Date(2026, 10, 22 - days, hours, 10)

  it('counts days as a calendar does', () => {
    expect(daysBetween(new Date(2026, 10, 21, 23, 59), new Date(2026, 10, 22, 0, 1))).toBe(1)
    expect(daysBetween(new Date(2026, 2, 28, 12), new Date(2026, 2, 30, 12))).toBe(2)
  })

  it('groups by day, pinned first, newest first', () => {
    const groups = groupByDay(
      [
        conversation('old', ago(200)),
        conversation('week', ago(7)),
        conversation('pin', ago(90), true),
        conversation('today', ago(0)),
        conversation('late yesterday', ago(1, 23)),
        conversation('month', ago(30)),
        conversation('also old', ago(201)),
      ],
      now,
    )
    expect(groups.map(({ kind, items }) => [kind, items.map(({ id }) => id)])).toEqual([
      ['pinned', ['pin']],
      ['today', ['today']],
      ['yesterday', ['late yesterday']],
      ['week', ['week']],
      ['month', ['month']],
      ['older', ['old', 'also old']],
    ])
  })
})

describe('durations', () => {
  const t = (key: string, named: Record<string, number | string>) => `${key} ${JSON.stringify(named)}`
  it('are in words', () => {
    expect(inWords(t, 9.94, { precise: true })).toBe('duration.seconds {"n":"9.9"}')
    expect(inWords(t, 9.96, { precise: true })).toBe('duration.seconds {"n":10}')
    expect(inWords(t, 59.6)).toBe('duration.minutes {"m":1,"s":0}')
    expect(inWords(t, -3)).toBe('duration.seconds {"n":0}')
  })
})
