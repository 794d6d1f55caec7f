import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ANSWERS, REASONING } from '../dev/mock-texts.mjs'
import { createMockServer } from '../dev/mock-server.mjs'
import { useAssistants } from '@/stores/assistants'
import { useBackend } from '@/stores/backend'
import { useConversations } from '@/stores/conversations'
import { useOutbox } from '@/stores/outbox'
import { useThreads } from '@/stores/threads'
import { openTab, type MockServer } from './helpers'

let server: MockServer
let port: number
const tabs: Awaited<ReturnType<typeof openTab>>[] = []

async function tab(options: Parameters<typeof openTab>[1] = {}) {
  const opened = await openTab(port, options)
  tabs.push(opened)
  const { pinia } = opened
  return {
    ...opened,
    threads: useThreads(pinia),
    outbox: useOutbox(pinia),
    conversations: useConversations(pinia),
    assistants: useAssistants(pinia),
  }
}

const eventually = <T>(check: () => T) => vi.waitFor(check, { timeout: 60_000, interval: 10 })

async function ask(page: Awaited<ReturnType<typeof tab>>, question: string) {
  const { id } = await page.threads.create(null)
  await page.threads.open(id)
  await page.threads.send(id, question)
  return id
}

beforeEach(async () => {
  localStorage.clear()
  server = createMockServer({ delayMs: 2, keepEvents: 40 })
  port = await server.listen(0)
})

afterEach(async () => {
  for (const { backend } of tabs.splice(0)) backend.stop()
  await server.close()
})

describe('a conversation with the server', () => {
  it('streams the answer and ends with all of it, once', async () => {
    const page = await tab()
    await ask(page, '想一想')
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('complete'))
    expect(page.threads.path.map(({ role }) => role)).toEqual(['user', 'assistant'])
    expect(page.threads.path.at(-1)?.content).toBe(ANSWERS.sky)
    expect(page.threads.path.at(-1)?.reasoning).toBe(REASONING)
    expect(page.threads.outgoing).toEqual([])
    expect(page.threads.active).toBeNull()
  })

  it('loses and repeats nothing when the connection breaks again and again', async () => {
    const page = await tab()
    await ask(page, 'a long story')
    let breaks = 0
    const breaking = setInterval(() => {
      // Enough is enough: on a busy machine no connection would live to see the end.
      if (++breaks > 25) return
      for (const socket of server.sockets) socket.terminate()
      page.backend.connection().reconnect()
    }, 60)
    try {
      await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('complete'))
    } finally {
      clearInterval(breaking)
    }
    expect(page.threads.path.at(-1)?.content).toBe(ANSWERS.long)
  })

  it('shows the same in a second tab that comes in the middle', async () => {
    const first = await tab()
    const id = await ask(first, 'a long story')
    await eventually(() => expect(first.threads.path.at(-1)?.content.length).toBeGreaterThan(20))
    const second = await tab()
    await second.threads.open(id)
    expect(second.threads.path.at(-1)?.content.length).toBeGreaterThan(0)
    await eventually(() => expect(second.threads.path.at(-1)?.status).toBe('complete'))
    expect(second.threads.path.at(-1)?.content).toBe(ANSWERS.long)
  })

  it('shows an answer as interrupted after the server was started again, and can try again', async () => {
    const page = await tab()
    await ask(page, 'a long story')
    await eventually(() => expect(page.threads.path.at(-1)?.content.length).toBeGreaterThan(20))
    server.restart()
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('interrupted'))
    const interrupted = page.threads.path.at(-1)
    expect(ANSWERS.long.startsWith(interrupted?.content ?? '?')).toBe(true)
    if (interrupted) await page.threads.regenerate(interrupted)
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('complete'))
    expect(page.threads.path.at(-1)?.content).toBe(ANSWERS.long)
  })

  it('stops when told to', async () => {
    const page = await tab()
    await ask(page, 'a long story')
    await eventually(() => expect(page.threads.active?.content.length).toBeGreaterThan(5))
    if (page.threads.active) await page.threads.stop(page.threads.active)
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('stopped'))
    expect(page.threads.stopping.size).toBe(0)
  })

  it('tells the place in the queue', async () => {
    const page = await tab()
    await ask(page, 'queue')
    const { id } = page.threads.path.at(-1) ?? { id: '' }
    await eventually(() => expect(page.threads.current?.queue.get(id)?.position).toBe(2))
    await eventually(() => expect(page.threads.current?.queue.size).toBe(0))
  })

  it('makes a branch of an edited question, and walks back', async () => {
    const page = await tab()
    const id = await ask(page, 'hello')
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('complete'))
    const [question] = page.threads.path
    await page.threads.send(id, '你好', question?.parent_id ?? null)
    await eventually(() => expect(page.threads.path.at(-1)?.content).toBe(ANSWERS.zh))
    expect(page.threads.path.map(({ content }) => content)).toEqual(['你好', ANSWERS.zh])
    const [edited] = page.threads.path
    if (edited && question) await page.threads.showBranch(edited, question.id)
    expect(page.threads.path.map(({ content }) => content)).toEqual(['hello', ANSWERS.en])
    expect(server.conversations.get(id)?.conversation.leaf_id).toBe(page.threads.path.at(-1)?.id)
  })

  it('keeps a refused question with the reason, and sends it again on demand', async () => {
    const page = await tab()
    await ask(page, 'please refuse')
    const [entry] = page.threads.outgoing
    expect(entry?.failure).toMatchObject({ kind: 'problem', problem: { code: 'queue.full' } })
    await page.outbox.retry(entry?.clientId ?? '')
    expect(page.threads.outgoing).toHaveLength(1)
    page.outbox.drop(entry?.clientId ?? '')
    expect(page.threads.outgoing).toEqual([])
    expect(localStorage.getItem('danlu.outbox')).toBeNull()
  })

  it('tells when a conversation does not exist', async () => {
    const page = await tab()
    await page.threads.open('nowhere')
    expect(page.threads.loadFailure).toMatchObject({ kind: 'problem', problem: { status: 404 } })
  })

  it('recovers a conversation that could not be loaded when the server is back', async () => {
    let away = true
    const first = await tab()
    const id = await ask(first, 'hello')
    const page = await tab({ fetchFails: () => away })
    await page.threads.open(id)
    away = false
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('complete'))
    expect(page.threads.loadFailure).toBeNull()
  })
})

describe('a question on its way', () => {
  it('survives a refresh before the server acknowledged it, and is asked once', async () => {
    const first = await tab()
    const { id } = await first.threads.create(null)
    await first.threads.open(id)
    // The server gets it; its acknowledgement never arrives.
    const sent = first.threads.send(id, 'hello')
    const stored = localStorage.getItem('danlu.outbox')
    expect(stored).toContain('hello')
    await sent
    first.backend.stop()
    localStorage.setItem('danlu.outbox', stored ?? '')

    const second = await tab()
    second.outbox.resume()
    await second.threads.open(id)
    await eventually(() => expect(second.threads.path.at(-1)?.status).toBe('complete'))
    await eventually(() => expect(localStorage.getItem('danlu.outbox')).toBeNull())
    expect([...(server.conversations.get(id)?.messages.values() ?? [])]).toHaveLength(2)
    expect(second.threads.outgoing).toEqual([])
  })

  it('is never on show twice, whether its message or its acknowledgement comes first', async () => {
    const page = await tab()
    const { id } = await page.threads.create(null)
    await page.threads.open(id)
    let most = 0
    const watching = setInterval(() => {
      const questions = page.threads.path.filter(({ role }) => role === 'user').length
      most = Math.max(most, questions + page.threads.outgoing.length)
    }, 0)
    await page.threads.send(id, 'hello')
    await eventually(() => expect(page.threads.path.at(-1)?.status).toBe('complete'))
    clearInterval(watching)
    expect(most).toBe(1)
  })
})

describe('the list', () => {
  it('follows what other tabs do', async () => {
    const [first, second] = [await tab(), await tab()]
    await second.conversations.load()
    const { id } = await first.threads.create(null)
    await eventually(() => expect(second.conversations.items.map((item) => item.id)).toEqual([id]))
    await first.conversations.update(id, { title: 'Named' })
    await eventually(() => expect(second.conversations.items[0]?.title).toBe('Named'))
    const [conversation] = first.conversations.items
    if (conversation) await first.conversations.remove(conversation)
    await eventually(() => expect(second.conversations.items).toEqual([]))
    expect(first.conversations.deleted.has(id)).toBe(true)
    await first.conversations.undo(id)
    await eventually(() => expect(second.conversations.items[0]?.title).toBe('Named'))
    expect(first.conversations.items.map((item) => item.id)).toEqual([id])
  })

  it('keeps a failed change at its conversation', async () => {
    const page = await tab()
    await page.conversations.update('nowhere', { title: 'x' })
    expect(page.conversations.itemFailures.get('nowhere')).toMatchObject({ kind: 'problem' })
  })

  it('searches, and shows everything again afterwards', async () => {
    const page = await tab()
    for (const title of ['Apples', 'Pears']) {
      const { id } = await page.threads.create(null)
      await page.conversations.update(id, { title })
    }
    await page.conversations.search('pear')
    expect(page.conversations.items.map(({ title }) => title)).toEqual(['Pears'])
    await page.conversations.search('')
    expect(page.conversations.items).toHaveLength(2)
  })

  it('says that the server cannot be reached', async () => {
    const page = await tab({ fetchFails: () => true })
    await page.conversations.load()
    expect(page.conversations.failure).toEqual({ kind: 'network' })
  })
})

describe('assistants', () => {
  it('prefers the chosen one, else one that is ready', async () => {
    const page = await tab()
    await page.assistants.load()
    const [first, second] = page.assistants.items
    if (!first || !second) throw new Error('two assistants expected')
    first.engine.state = 'failed'
    expect(page.assistants.chosen?.id).toBe(second.id)
    page.assistants.choose(first.id)
    expect(page.assistants.chosen?.id).toBe(first.id)
  })

  it('takes over the state of the engine as it changes', async () => {
    const page = await tab()
    await page.assistants.load()
    await fetch(`http://127.0.0.1:${port}/dev/engine`, { method: 'POST', body: '{"state":"restarting"}' })
    await eventually(() => expect(page.assistants.items[0]?.engine.state).toBe('restarting'))
  })
})

describe('the language', () => {
  it('is told to the server with each request and with the connection', async () => {
    const page = await tab()
    const seen: string[] = []
    const original = globalThis.fetch
    vi.stubGlobal('fetch', (input: string, init: RequestInit) => {
      seen.push((init.headers as Record<string, string>)['Accept-Language'] ?? '')
      return original(input, init)
    })
    const { usePreferences } = await import('@/stores/preferences')
    usePreferences(page.pinia).setLocale('zh')
    await eventually(() => expect(useBackend(page.pinia).state).toBe('online'))
    await page.conversations.load()
    expect(seen).toEqual(['zh-CN'])
  })
})
