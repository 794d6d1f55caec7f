/**
 * One conversation as this page knows it, and the rules by which events change it.
 *
 * Sequence numbers decide: an event that was seen is ignored, the next one is applied, a later one is a gap, after
 * which the caller asks the server again. So text is never lost and never doubled, however the frames arrive.
 * Works on plain objects; nothing of Vue, sockets or the screen.
 */
import type { Conversation, EventFrame, Message, ThreadEvent, ThreadSnapshot } from '@/api/types'

export interface QueuePlace {
  position: number
  etaSeconds: number | null
  /** When this was told, in the reader's clock (ms), so that the time left can count down. */
  toldAt: number
}

export interface Timeline {
  conversation: Conversation
  messages: Map<string, Message>
  seq: number
  epoch: string
  queue: Map<string, QueuePlace>
  /** When reasoning was first seen to arrive, and when it ended (ms); only for answers that were watched. */
  thinking: Map<string, { from: number; to: number | null }>
}

/** `gap`: ask for the events after `seq`. `broken`: the numbers fit but the content does not; ask for a snapshot. */
export type Outcome = 'applied' | 'duplicate' | 'gap' | 'broken'

export function fromSnapshot(snapshot: ThreadSnapshot): Timeline {
  return {
    conversation: snapshot.conversation,
    messages: new Map(snapshot.messages.map((message) => [message.id, message])),
    seq: snapshot.seq,
    epoch: snapshot.epoch,
    queue: new Map(),
    thinking: new Map(),
  }
}

/** Replaces what is known, unless the snapshot is older than that (a slow HTTP answer overtaken by events). */
export function applySnapshot(timeline: Timeline, snapshot: ThreadSnapshot): Outcome {
  if (snapshot.epoch === timeline.epoch && snapshot.seq < timeline.seq) return 'duplicate'
  const fresh = fromSnapshot(snapshot)
  for (const [id, place] of timeline.queue) {
    if (fresh.messages.get(id)?.status === 'queued') fresh.queue.set(id, place)
  }
  for (const [id, span] of timeline.thinking) if (fresh.messages.has(id)) fresh.thinking.set(id, span)
  Object.assign(timeline, fresh)
  return 'applied'
}

/**
 * Applies one numbered event. `epoch` is that of the connection it came over: numbers of another life of the server
 * mean nothing here, so a difference is a gap.
 */
export function applyEvent(timeline: Timeline, frame: EventFrame, epoch: string, now: number): Outcome {
  if (epoch !== timeline.epoch) return 'gap'
  if (frame.seq <= timeline.seq) return 'duplicate'
  if (frame.seq > timeline.seq + 1) return 'gap'
  if (!change(timeline, frame.event, now)) return 'broken'
  timeline.seq = frame.seq
  return 'applied'
}

function change(timeline: Timeline, event: ThreadEvent, now: number): boolean {
  switch (event.kind) {
    case 'message':
      timeline.messages.set(event.message.id, event.message)
      if (event.message.status !== 'queued') timeline.queue.delete(event.message.id)
      if (event.message.status !== 'generating') endThinking(timeline, event.message.id, now)
      return true
    case 'delta': {
      const message = timeline.messages.get(event.message_id)
      if (!message) return false
      if (event.reasoning) {
        message.reasoning = (message.reasoning ?? '') + event.reasoning
        if (!timeline.thinking.has(message.id)) timeline.thinking.set(message.id, { from: now, to: null })
      }
      if (event.content) {
        message.content += event.content
        endThinking(timeline, message.id, now)
      }
      return true
    }
    case 'queue':
      timeline.queue.set(event.message_id, {
        position: event.position,
        etaSeconds: event.eta_seconds,
        toldAt: now,
      })
      return true
    case 'conversation':
      timeline.conversation = event.conversation
      return true
  }
}

function endThinking(timeline: Timeline, messageId: string, now: number): void {
  const span = timeline.thinking.get(messageId)
  if (span && span.to === null) span.to = now
}
