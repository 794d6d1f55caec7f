/**
 * The live connection: one WebSocket that comes back by itself.
 *
 * It knows requests and their answers, which conversations to ask for again after a break, and when to try again.
 * It does not know what events mean; `chat/timeline.ts` does.
 */
import { ApiError } from './failure'
import type { Ack, ClientRequest, ServerFrame } from './types'

export type SocketState = 'connecting' | 'online' | 'waiting' | 'stopped'

export interface Cursor {
  epoch: string | null
  last_seq: number | null
}

export interface SocketOptions {
  url: () => string
  onFrame: (frame: ServerFrame) => void
  onState?: (state: SocketState, retryAt: number | null) => void
  WebSocket?: new (url: string) => WebSocket
  random?: () => number
}

interface Pending {
  request: ClientRequest
  durable: boolean
  resolve: (ack: Ack) => void
  reject: (error: ApiError) => void
}

const BACKOFF_FIRST_MS = 500
const BACKOFF_MOST_MS = 15_000
/** A connection that lived this long was a good one: the next break starts counting anew. */
const STABLE_MS = 5_000
const IDLE_BEFORE_PING_MS = 20_000
const PONG_WITHIN_MS = 10_000
const PROBE_WITHIN_MS = 4_000

export class LiveSocket {
  private ws: WebSocket | null = null
  private state: SocketState = 'stopped'
  private attempt = 0
  private requests = 0
  private readonly pending = new Map<string, Pending>()
  private readonly subscriptions = new Map<string, () => Cursor>()
  private retryTimer: ReturnType<typeof setTimeout> | undefined
  private pingTimer: ReturnType<typeof setTimeout> | undefined
  private stableTimer: ReturnType<typeof setTimeout> | undefined

  constructor(private readonly options: SocketOptions) {}

  start(): void {
    if (this.state !== 'stopped') return
    globalThis.addEventListener?.('online', this.wake)
    globalThis.document?.addEventListener('visibilitychange', this.wake)
    this.connect()
  }

  stop(): void {
    globalThis.removeEventListener?.('online', this.wake)
    globalThis.document?.removeEventListener('visibilitychange', this.wake)
    this.clearTimers()
    this.detach()
    this.setState('stopped', null)
    this.rejectPending(() => true)
  }

  /** Drops the connection and opens a new one at once (the language changed, or the person asked to try now). */
  reconnect = (): void => {
    if (this.state === 'stopped') return
    this.attempt = 0
    this.detach()
    this.connect()
  }

  /** Follows a conversation from the cursor on, now and after every break, until `unsubscribe`. */
  subscribe(conversationId: string, cursor: () => Cursor): Promise<Ack | null> {
    this.subscriptions.set(conversationId, cursor)
    return this.resubscribe(conversationId)
  }

  /** Asks for the events after the cursor again. Resolves with null when the answer has to wait for a connection. */
  async resubscribe(conversationId: string): Promise<Ack | null> {
    const cursor = this.subscriptions.get(conversationId)
    if (!cursor || this.state !== 'online') return null
    return this.request({ type: 'subscribe', conversation_id: conversationId, ...cursor() })
  }

  unsubscribe(conversationId: string): void {
    if (!this.subscriptions.delete(conversationId) || this.state !== 'online') return
    // The answer changes nothing here, and a connection that breaks has unsubscribed as well.
    this.request({ type: 'unsubscribe', conversation_id: conversationId }).catch(() => undefined)
  }

  /**
   * Sends a request and resolves with its acknowledgement; the server's refusal rejects with its problem.
   * A durable request outlives breaks: it is sent again on the next connection, so it must be idempotent.
   * Any other fails with `network` when there is no connection or it breaks.
   */
  request(request: ClientRequest, { durable = false } = {}): Promise<Ack> {
    if (!durable && this.state !== 'online') return Promise.reject(new ApiError({ kind: 'network' }))
    const id = String(++this.requests)
    return new Promise<Ack>((resolve, reject) => {
      this.pending.set(id, { request, durable, resolve, reject })
      if (this.state === 'online') this.transmit(id, request)
    })
  }

  private connect(): void {
    this.clearTimers()
    this.setState('connecting', null)
    const ws = new (this.options.WebSocket ?? WebSocket)(this.options.url())
    this.ws = ws
    ws.onmessage = (message) => {
      if (this.ws === ws) this.receive(JSON.parse(String(message.data)) as ServerFrame)
    }
    ws.onclose = () => {
      if (this.ws === ws) this.lost()
    }
    this.expectFrame(PONG_WITHIN_MS)
  }

  private receive(frame: ServerFrame): void {
    clearTimeout(this.pingTimer)
    this.pingTimer = setTimeout(() => this.ping(PONG_WITHIN_MS), IDLE_BEFORE_PING_MS)
    if (frame.type === 'ack' || frame.type === 'error') this.answer(frame)
    else if (frame.type !== 'pong') this.options.onFrame(frame)
    if (frame.type === 'welcome') this.welcomed()
  }

  private welcomed(): void {
    // Taken before anyone hears of the new state, because a listener may add to both.
    const left = [...this.pending].filter(([, pending]) => pending.durable)
    const followed = [...this.subscriptions.keys()]
    this.stableTimer = setTimeout(() => (this.attempt = 0), STABLE_MS)
    this.setState('online', null)
    // A refusal (the conversation is gone) is shown by whoever opens it over HTTP.
    for (const id of followed) this.resubscribe(id).catch(() => undefined)
    for (const [id, { request }] of left) this.transmit(id, request)
  }

  private answer(frame: Extract<ServerFrame, { type: 'ack' | 'error' }>): void {
    const pending = frame.id === null ? undefined : this.pending.get(frame.id)
    if (!pending || frame.id === null) return
    this.pending.delete(frame.id)
    if (frame.type === 'ack') pending.resolve(frame)
    else pending.reject(new ApiError({ kind: 'problem', problem: frame.problem }))
  }

  private transmit(id: string, request: ClientRequest): void {
    this.ws?.send(JSON.stringify({ id, ...request }))
  }

  private ping(within: number): void {
    if (this.state !== 'online') return
    this.transmit(String(++this.requests), { type: 'ping' })
    this.expectFrame(within)
  }

  /** A connection that stays silent is dead, whatever the operating system believes. */
  private expectFrame(within: number): void {
    clearTimeout(this.pingTimer)
    this.pingTimer = setTimeout(() => this.lost(), within)
  }

  private lost(): void {
    this.clearTimers()
    this.detach()
    const ceiling = Math.min(BACKOFF_MOST_MS, BACKOFF_FIRST_MS * 2 ** this.attempt++)
    // Half fixed, half random: many tabs that lost one server do not come back in one instant.
    const delay = ceiling * (0.5 + 0.5 * (this.options.random ?? Math.random)())
    this.setState('waiting', Date.now() + delay)
    this.retryTimer = setTimeout(() => this.connect(), delay)
    this.rejectPending((pending) => !pending.durable)
  }

  /** The machine woke up or the page came to the front: do not sit out a long wait, and do not trust an old connection. */
  private wake = (): void => {
    if (globalThis.document?.visibilityState === 'hidden') return
    if (this.state === 'waiting') this.reconnect()
    else this.ping(PROBE_WITHIN_MS)
  }

  private detach(): void {
    const ws = this.ws
    this.ws = null
    if (!ws) return
    ws.onmessage = ws.onclose = null
    ws.close()
  }

  private rejectPending(which: (pending: Pending) => boolean): void {
    for (const [id, pending] of this.pending) {
      if (!which(pending)) continue
      this.pending.delete(id)
      pending.reject(new ApiError({ kind: 'network' }))
    }
  }

  private clearTimers(): void {
    clearTimeout(this.retryTimer)
    clearTimeout(this.pingTimer)
    clearTimeout(this.stableTimer)
  }

  private setState(state: SocketState, retryAt: number | null): void {
    this.state = state
    this.options.onState?.(state, retryAt)
  }
}
