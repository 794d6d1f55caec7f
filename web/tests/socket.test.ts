// @vitest-environment node
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LiveSocket, type SocketState } from '@/api/socket'
import type { ServerFrame } from '@/api/types'

/** A connection whose other end is the test. */
class FakeWebSocket {
  static all: FakeWebSocket[] = []
  static get last(): FakeWebSocket {
    return FakeWebSocket.all.at(-1) as FakeWebSocket
  }

  onmessage: ((event: { data: string }) => void) | null = null
  onclose: (() => void) | null = null
  closed = false
  sent: Record<string, unknown>[] = []

  constructor(readonly url: string) {
    FakeWebSocket.all.push(this)
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text))
  }

  close(): void {
    this.closed = true
  }

  say(frame: object): void {
    this.onmessage?.({ data: JSON.stringify(frame) })
  }

  welcome(epoch = 'e1'): void {
    this.say({ type: 'welcome', protocol: 1, epoch })
  }

  break(): void {
    this.onclose?.()
  }
}

const states: [SocketState, number | null][] = []
const frames: ServerFrame[] = []
let socket: LiveSocket
const stateNow = () => states.at(-1)?.[0]

beforeEach(() => {
  vi.useFakeTimers()
  FakeWebSocket.all = []
  states.length = 0
  frames.length = 0
  socket = new LiveSocket({
    url: () => 'ws://test/ws',
    WebSocket: FakeWebSocket as unknown as new (url: string) => WebSocket,
    onFrame: (frame) => frames.push(frame),
    onState: (state, at) => states.push([state, at]),
    random: () => 1,
  })
  socket.start()
})

afterEach(() => {
  socket.stop()
  vi.useRealTimers()
})

describe('the connection', () => {
  it('is online when the server has said welcome, not before', () => {
    expect(stateNow()).toBe('connecting')
    FakeWebSocket.last.welcome()
    expect(stateNow()).toBe('online')
  })

  it('comes back with growing pauses, at most 15 s, and tells when', () => {
    const pauses: number[] = []
    for (let attempt = 0; attempt < 8; attempt++) {
      FakeWebSocket.last.break()
      expect(stateNow()).toBe('waiting')
      const pause = (states.at(-1)?.[1] ?? 0) - Date.now()
      pauses.push(pause)
      vi.advanceTimersByTime(pause - 1)
      expect(FakeWebSocket.all).toHaveLength(attempt + 1)
      vi.advanceTimersByTime(1)
      expect(FakeWebSocket.all).toHaveLength(attempt + 2)
    }
    expect(pauses).toEqual([500, 1000, 2000, 4000, 8000, 15000, 15000, 15000])
  })

  it('starts counting anew only after a connection that held', () => {
    const pauseAfterBreak = () => {
      FakeWebSocket.last.break()
      const pause = (states.at(-1)?.[1] ?? 0) - Date.now()
      vi.advanceTimersByTime(pause)
      return pause
    }
    FakeWebSocket.last.welcome()
    expect(pauseAfterBreak()).toBe(500)
    FakeWebSocket.last.welcome()
    expect(pauseAfterBreak()).toBe(1000)
    FakeWebSocket.last.welcome()
    vi.advanceTimersByTime(5000)
    expect(pauseAfterBreak()).toBe(500)
  })

  it('gives up a connection that has gone silent', () => {
    FakeWebSocket.last.welcome()
    vi.advanceTimersByTime(20_000)
    expect(FakeWebSocket.last.sent.at(-1)).toMatchObject({ type: 'ping' })
    vi.advanceTimersByTime(9_000)
    FakeWebSocket.last.say({ type: 'pong', id: '1' })
    vi.advanceTimersByTime(20_000)
    expect(stateNow()).toBe('online')
    vi.advanceTimersByTime(10_000)
    expect(stateNow()).toBe('waiting')
    expect(FakeWebSocket.all[0]?.closed).toBe(true)
  })

  it('gives up a connection on which no welcome comes', () => {
    vi.advanceTimersByTime(10_000)
    expect(stateNow()).toBe('waiting')
  })

  it('hears nothing from a connection it has left', () => {
    const old = FakeWebSocket.last
    old.welcome()
    socket.reconnect()
    old.say({ type: 'conversations', change: 'delete', conversation: {} })
    old.break()
    expect(frames.map(({ type }) => type)).toEqual(['welcome'])
    expect(stateNow()).toBe('connecting')
  })
})

describe('requests', () => {
  it('are answered by id, in any order', async () => {
    FakeWebSocket.last.welcome()
    const first = socket.request({ type: 'stop', conversation_id: 'c', message_id: 'm' })
    const second = socket.request({ type: 'stop', conversation_id: 'c', message_id: 'n' })
    const [a, b] = FakeWebSocket.last.sent
    FakeWebSocket.last.say({ type: 'ack', id: b?.id, user_message_id: 'two' })
    FakeWebSocket.last.say({ type: 'error', id: a?.id, problem: { title: 'No', status: 409 } })
    expect((await second).user_message_id).toBe('two')
    await expect(first).rejects.toMatchObject({ failure: { kind: 'problem', problem: { title: 'No' } } })
  })

  it('fail at once without a connection, and when it breaks', async () => {
    await expect(socket.request({ type: 'ping' })).rejects.toMatchObject({ failure: { kind: 'network' } })
    FakeWebSocket.last.welcome()
    const lost = socket.request({ type: 'stop', conversation_id: 'c', message_id: 'm' })
    FakeWebSocket.last.break()
    await expect(lost).rejects.toMatchObject({ failure: { kind: 'network' } })
  })

  it('wait for a connection and are sent again after a break when durable, with the same client id', async () => {
    const request = { type: 'send', client_id: 'k', conversation_id: 'c', parent_id: null, content: 'Hi' } as const
    const answer = socket.request(request, { durable: true })
    expect(FakeWebSocket.last.sent).toEqual([])
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent).toEqual([expect.objectContaining(request)])
    FakeWebSocket.last.break()
    vi.advanceTimersByTime(500)
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent).toEqual([expect.objectContaining(request)])
    FakeWebSocket.last.say({ type: 'ack', id: FakeWebSocket.last.sent[0]?.id })
    await answer
    FakeWebSocket.last.break()
    vi.advanceTimersByTime(1000)
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent).toEqual([])
  })

  it('are sent once when they are made in the moment of the welcome', () => {
    const eager = new LiveSocket({
      url: () => 'ws://test/ws',
      WebSocket: FakeWebSocket as unknown as new (url: string) => WebSocket,
      onFrame: () => undefined,
      onState: (state) => {
        if (state !== 'online') return
        eager.subscribe('c', () => ({ epoch: null, last_seq: null })).catch(() => undefined)
        eager.request({ type: 'stop', conversation_id: 'c', message_id: 'm' }, { durable: true }).catch(() => undefined)
      },
    })
    eager.start()
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent.map(({ type }) => type)).toEqual(['subscribe', 'stop'])
    eager.stop()
  })
})

describe('subscriptions', () => {
  it('are renewed after a break from where the page is by then', async () => {
    let seq = 3
    void socket.subscribe('c', () => ({ epoch: 'e1', last_seq: seq }))
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent).toEqual([expect.objectContaining({ type: 'subscribe', last_seq: 3 })])
    FakeWebSocket.last.say({ type: 'ack', id: FakeWebSocket.last.sent[0]?.id })
    seq = 9
    FakeWebSocket.last.break()
    vi.advanceTimersByTime(500)
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent).toEqual([expect.objectContaining({ type: 'subscribe', epoch: 'e1', last_seq: 9 })])
  })

  it('end when they are given up', () => {
    void socket.subscribe('c', () => ({ epoch: null, last_seq: null }))
    FakeWebSocket.last.welcome()
    socket.unsubscribe('c')
    expect(FakeWebSocket.last.sent.at(-1)).toMatchObject({ type: 'unsubscribe', conversation_id: 'c' })
    FakeWebSocket.last.break()
    vi.advanceTimersByTime(500)
    FakeWebSocket.last.welcome()
    expect(FakeWebSocket.last.sent).toEqual([])
  })
})

describe('waking up', () => {
  it('tries at once instead of sitting out the pause, and doubts an old connection', () => {
    const target = new EventTarget()
    vi.stubGlobal('addEventListener', target.addEventListener.bind(target))
    vi.stubGlobal('removeEventListener', target.removeEventListener.bind(target))
    socket.stop()
    socket.start()
    FakeWebSocket.last.welcome()
    const before = FakeWebSocket.all.length
    target.dispatchEvent(new Event('online'))
    expect(FakeWebSocket.last.sent.at(-1)).toMatchObject({ type: 'ping' })
    vi.advanceTimersByTime(4000)
    expect(stateNow()).toBe('waiting')
    target.dispatchEvent(new Event('online'))
    expect(stateNow()).toBe('connecting')
    expect(FakeWebSocket.all).toHaveLength(before + 1)
  })
})
