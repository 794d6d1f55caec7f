import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Conversation, EventFrame, Message, ThreadEvent, ThreadSnapshot } from '@/api/types'
import { applyEvent, applySnapshot, fromSnapshot, type Timeline } from '@/chat/timeline'

const EPOCH = 'first-life'

const conversation: Conversation = {
  id: 'c', title: 'T', assistant_id: 'a', pinned: false, created_at: '2026-01-01T00:00:00Z',
  updated_at: '2026-01-01T00:00:00Z', leaf_id: null, generating: false,
} // prettier-ignore

function message(id: string, fields: Partial<Message> = {}): Message {
  return {
    id, conversation_id: 'c', parent_id: null, role: 'assistant', content: '', reasoning: null, status: 'generating',
    error: null, created_at: '2026-01-01T00:00:00Z', finished_at: null, provenance: null, ...fields,
  } // prettier-ignore
}

/** A server in small: keeps the truth and the last `kept` events of it. */
class Truth {
  private readonly log: EventFrame[] = []
  private timeline: Timeline = fromSnapshot({ conversation, messages: [], seq: 0, epoch: EPOCH })

  constructor(
    events: ThreadEvent[],
    private readonly kept: number,
  ) {
    for (const event of structuredClone(events)) {
      const frame: EventFrame = { type: 'event', conversation_id: 'c', seq: this.timeline.seq + 1, event }
      this.log.push(structuredClone(frame))
      applyEvent(this.timeline, frame, EPOCH, 0)
    }
  }

  frame(seq: number): EventFrame {
    return structuredClone(this.log[seq - 1] as EventFrame)
  }

  get length(): number {
    return this.log.length
  }

  snapshot(): ThreadSnapshot {
    const { conversation: known, messages, seq, epoch } = this.timeline
    return structuredClone({ conversation: known, messages: [...messages.values()], seq, epoch })
  }

  /** The answer to a subscription: the tail if it is still kept, else a snapshot. */
  resume(client: Timeline): void {
    if (client.epoch === EPOCH && client.seq >= this.length - this.kept) {
      for (let seq = client.seq + 1; seq <= this.length; seq++) applyEvent(client, this.frame(seq), EPOCH, 0)
    } else applySnapshot(client, this.snapshot())
  }
}

const EVENTS: ThreadEvent[] = [
  { kind: 'message', message: message('q', { role: 'user', content: 'Why?', status: 'complete' }) },
  { kind: 'message', message: message('a', { parent_id: 'q', status: 'queued' }) },
  { kind: 'queue', message_id: 'a', position: 2, eta_seconds: 8 },
  { kind: 'message', message: message('a', { parent_id: 'q' }) },
  ...[...'Let me think.'].map((text): ThreadEvent => ({ kind: 'delta', message_id: 'a', content: '', reasoning: text })),
  ...[...'因为天是蓝的。Because.'].map((text): ThreadEvent => ({ kind: 'delta', message_id: 'a', content: text, reasoning: '' })),
  { kind: 'message', message: message('a', { parent_id: 'q', content: '因为天是蓝的。Because.', reasoning: 'Let me think.', status: 'complete' }) },
  { kind: 'conversation', conversation: { ...conversation, title: 'Why?', leaf_id: 'a' } },
] // prettier-ignore

const shown = (timeline: Timeline) => ({
  conversation: timeline.conversation,
  messages: [...timeline.messages.values()],
  seq: timeline.seq,
})

describe('a conversation', () => {
  it('ends with the same text however its events are lost, doubled and shuffled', () => {
    const delivery = fc.array(fc.integer({ min: 1, max: EVENTS.length }), { maxLength: 200 })
    fc.assert(
      fc.property(delivery, fc.integer({ min: 0, max: EVENTS.length }), fc.nat({ max: 30 }), (seqs, start, kept) => {
        const truth = new Truth(EVENTS, kept)
        const before = new Truth(EVENTS.slice(0, start), kept)
        const client = fromSnapshot(before.snapshot())
        let gaps = 0
        for (const seq of seqs) {
          if (applyEvent(client, truth.frame(seq), EPOCH, 0) === 'gap' && gaps++ % 3 === 0) truth.resume(client)
          const text = client.messages.get('a')?.content ?? ''
          // Never a character twice or out of order on the way, either.
          expect('因为天是蓝的。Because.'.startsWith(text)).toBe(true)
        }
        truth.resume(client)
        expect(shown(client)).toEqual(shown(fromSnapshot(truth.snapshot())))
      }),
      { numRuns: 500 },
    )
  })

  it('takes events of another life of the server for a gap, whatever their numbers', () => {
    const client = fromSnapshot(new Truth(EVENTS.slice(0, 3), 0).snapshot())
    const next = new Truth(EVENTS, 0).frame(4)
    expect(applyEvent(client, next, 'second-life', 0)).toBe('gap')
    expect(applyEvent(client, next, EPOCH, 0)).toBe('applied')
  })

  it('ignores a snapshot that events have overtaken, and takes one of a new life', () => {
    const early = new Truth(EVENTS.slice(0, 6), 0).snapshot()
    const client = fromSnapshot(new Truth(EVENTS, 0).snapshot())
    expect(applySnapshot(client, early)).toBe('duplicate')
    expect(client.messages.get('a')?.status).toBe('complete')
    expect(applySnapshot(client, { ...early, epoch: 'second-life' })).toBe('applied')
    expect(client.seq).toBe(6)
  })

  it('asks for everything when a delta has no message to go to', () => {
    const client = fromSnapshot({ conversation, messages: [], seq: 0, epoch: EPOCH })
    const event: ThreadEvent = { kind: 'delta', message_id: 'nobody', content: 'x', reasoning: '' }
    expect(applyEvent(client, { type: 'event', conversation_id: 'c', seq: 1, event }, EPOCH, 0)).toBe('broken')
    expect(client.seq).toBe(0)
  })

  it('forgets the place in the queue when the turn comes', () => {
    const client = fromSnapshot(new Truth(EVENTS.slice(0, 2), 0).snapshot())
    applyEvent(client, new Truth(EVENTS, 0).frame(3), EPOCH, 1000)
    expect(client.queue.get('a')).toEqual({ position: 2, etaSeconds: 8, toldAt: 1000 })
    applyEvent(client, new Truth(EVENTS, 0).frame(4), EPOCH, 2000)
    expect(client.queue.size).toBe(0)
  })

  it('measures thinking from its first word to the first word of the answer', () => {
    const truth = new Truth(EVENTS, 0)
    const client = fromSnapshot(new Truth(EVENTS.slice(0, 4), 0).snapshot())
    for (let seq = 5; seq <= 20; seq++) applyEvent(client, truth.frame(seq), EPOCH, seq * 1000)
    expect(client.thinking.get('a')).toEqual({ from: 5000, to: 18000 })
  })
})
