/**
 * A stand-in for the server while working on the page: speaks the same API and WebSocket protocol, answers slowly with
 * canned text. Words in the question choose the answer: code, think, fail, queue, long, interrupt.
 *
 *   node dev/mock-server.mjs [--port N] [--static] [--empty] [--seed]
 *
 * --static serves the built page with the server's Content-Security-Policy; --empty has no assistant;
 * --seed starts with some conversations. POST /dev/restart loses all connections and begins a new life.
 */
import { randomUUID } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'
import { ANSWERS, REASONING, SEED } from './mock-texts.mjs'

const CSP =
  "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'"
const STATIC = join(import.meta.dirname, '../../src/danlu/server/static/')
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.woff2': 'font/woff2' }

const now = () => new Date().toISOString()

export function createMockServer({ serveStatic = false, empty = false, seed = false, delayMs = 30, keepEvents = 200 } = {}) {
  let epoch = randomUUID()
  const conversations = new Map()
  const clientIds = new Map()
  const sockets = new Set()
  const assistants = empty ? [] : [assistant('persona', '小炉', true), assistant('manual', 'Handbook helper', false)]

  function assistant(id, name, chinese) {
    return {
      id,
      name,
      greeting: chinese ? '你好，我是小炉，今天想聊点什么？' : 'I know the handbook. Ask me anything about it.',
      suggestions: chinese
        ? ['你是谁？', '用 Python 写一个快速排序（code）', '想一想：为什么天空是蓝色的？（think）', '给我讲一个很长的故事（long）']
        : ['Who are you?', 'Explain attention (think)'],
      system: '',
      model: { version_id: `${id}-v3`, name: `${id} v3`, base: 'smollm2-135m-instruct' },
      engine: { kind: 'llamacpp', state: 'ready', detail: null, running: 0, waiting: 0, capacity: 2 },
    }
  }

  function problem(status, code, title, fix) {
    return { type: `urn:danlu:${code}`, title, status, detail: title, code, where: null, fix }
  }

  function createConversation(assistantId, title = '') {
    const conversation = {
      id: randomUUID(),
      title,
      assistant_id: assistantId ?? assistants[0]?.id ?? 'none',
      pinned: false,
      created_at: now(),
      updated_at: now(),
      leaf_id: null,
      generating: false,
    }
    const thread = { conversation, messages: new Map(), seq: 0, log: [], deleted: false, running: null }
    conversations.set(conversation.id, thread)
    return thread
  }

  const snapshot = (thread) => ({
    conversation: thread.conversation,
    messages: [...thread.messages.values()],
    seq: thread.seq,
    epoch,
  })

  function emit(thread, event) {
    const id = thread.conversation.id
    const frame = JSON.stringify({ type: 'event', conversation_id: id, seq: ++thread.seq, event })
    thread.log.push({ seq: thread.seq, frame })
    if (thread.log.length > keepEvents) thread.log.shift()
    for (const socket of sockets) if (socket.following.has(id)) socket.send(frame)
  }

  function listChanged(thread, change = 'upsert') {
    const frame = JSON.stringify({ type: 'conversations', change, conversation: thread.conversation })
    for (const socket of sockets) socket.send(frame)
  }

  function touch(thread, change) {
    Object.assign(thread.conversation, change, { updated_at: now() })
    emit(thread, { kind: 'conversation', conversation: { ...thread.conversation } })
    listChanged(thread)
  }

  function addMessage(thread, fields) {
    const message = {
      id: randomUUID(),
      conversation_id: thread.conversation.id,
      reasoning: null,
      error: null,
      created_at: now(),
      finished_at: null,
      provenance: null,
      ...fields,
    }
    thread.messages.set(message.id, message)
    emit(thread, { kind: 'message', message: { ...message } })
    return message
  }

  function answer(thread, question) {
    const message = addMessage(thread, { parent_id: question.id, role: 'assistant', content: '', status: 'queued' })
    touch(thread, { leaf_id: message.id, generating: true, title: thread.conversation.title || question.content.slice(0, 40) })
    void generate(thread, message, question.content)
    return message
  }

  const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

  async function generate(thread, message, prompt) {
    const run = { stopped: false }
    thread.running = run
    const started = Date.now()
    const change = (fields) => {
      Object.assign(message, fields)
      emit(thread, { kind: 'message', message: { ...message } })
    }
    const finish = (status, fields = {}) => {
      change({ status, finished_at: now(), ...fields })
      touch(thread, { generating: false })
    }
    const life = epoch
    if (/queue|排队/.test(prompt)) {
      for (let position = 3; position > 0 && !run.stopped; position--) {
        emit(thread, { kind: 'queue', message_id: message.id, position, eta_seconds: position * 4 })
        await sleep(delayMs * 60)
      }
    }
    if (run.stopped) return finish('stopped')
    change({ status: 'generating' })
    await sleep(delayMs * 10)
    let reasoningSeconds = null
    const think = /think|想一想/.test(prompt)
    const parts = [
      ...(think ? REASONING.match(/[\s\S]{1,4}/gu).map((text) => ['reasoning', text]) : []),
      ...pick(prompt).match(/[\s\S]{1,4}/gu).map((text) => ['content', text]),
    ]
    let tokens = 0
    for (const [field, text] of parts) {
      if (epoch !== life) return
      if (run.stopped) break
      if (field === 'content' && think) reasoningSeconds ??= (Date.now() - started) / 1000
      message[field] = (message[field] ?? '') + text
      emit(thread, { kind: 'delta', message_id: message.id, content: '', reasoning: '', [field]: text })
      tokens++
      if (/fail|失败/.test(prompt) && tokens > 25) {
        return finish('failed', {
          error: problem(503, 'engine.died', 'The engine ended in the middle of the answer.', 'It is being restarted; try again in a few seconds.'),
        })
      }
      if (/interrupt|中断/.test(prompt) && tokens > 25) return finish('interrupted')
      await sleep(delayMs)
    }
    const seconds = (Date.now() - started) / 1000
    finish(run.stopped ? 'stopped' : 'complete', {
      provenance: {
        assistant: assistants.find(({ id }) => id === thread.conversation.assistant_id)?.name ?? '',
        version: 'v3',
        engine: 'llamacpp',
        tokens,
        tokens_per_second: tokens / seconds,
        seconds,
        finish_reason: run.stopped ? 'stop' : 'stop',
        reasoning_seconds: reasoningSeconds,
      },
    })
  }

  function pick(prompt) {
    if (/code|代码/.test(prompt)) return ANSWERS.code
    if (/long|长/.test(prompt)) return ANSWERS.long
    if (/think|想/.test(prompt)) return ANSWERS.sky
    return /[\u4e00-\u9fff]/.test(prompt) ? ANSWERS.zh : ANSWERS.en
  }

  const requests = {
    subscribe(socket, request) {
      const thread = conversations.get(request.conversation_id)
      if (!thread || thread.deleted) throw problem(404, 'conversation.unknown', 'This conversation does not exist.', 'Choose one from the list.')
      socket.following.add(request.conversation_id)
      const first = thread.log[0]?.seq ?? thread.seq + 1
      const replayable = request.epoch === epoch && request.last_seq !== null && request.last_seq + 1 >= first && request.last_seq <= thread.seq
      if (!replayable) {
        socket.send(JSON.stringify({ type: 'snapshot', conversation_id: request.conversation_id, ...snapshot(thread) }))
      } else for (const { seq, frame } of thread.log) if (seq > request.last_seq) socket.send(frame)
      return {}
    },
    unsubscribe(socket, request) {
      socket.following.delete(request.conversation_id)
      return {}
    },
    send(_socket, request) {
      return once(request.client_id, () => {
        const thread = threadOf(request.conversation_id)
        if (/refuse|拒绝/.test(request.content)) throw problem(503, 'queue.full', 'Too many questions are waiting.', 'Try again in 10 seconds.')
        const question = addMessage(thread, { parent_id: request.parent_id, role: 'user', content: request.content, status: 'complete' })
        return { user_message_id: question.id, assistant_message_id: answer(thread, question).id }
      })
    },
    regenerate(_socket, request) {
      return once(request.client_id, () => {
        const thread = threadOf(request.conversation_id)
        const question = thread.messages.get(thread.messages.get(request.message_id).parent_id)
        return { assistant_message_id: answer(thread, question).id }
      })
    },
    stop(_socket, request) {
      const { running } = threadOf(request.conversation_id)
      if (running) running.stopped = true
      return {}
    },
  }

  function threadOf(id) {
    const thread = conversations.get(id)
    if (!thread || thread.deleted) throw problem(404, 'conversation.unknown', 'This conversation does not exist.', 'Choose one from the list.')
    return thread
  }

  function once(clientId, action) {
    if (!clientIds.has(clientId)) clientIds.set(clientId, action())
    return clientIds.get(clientId)
  }

  const http = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://localhost')
    const send = (status, body, headers = {}) => {
      const type = status >= 400 ? 'application/problem+json' : 'application/json'
      response.writeHead(status, { 'Content-Type': type, 'Content-Security-Policy': CSP, ...headers })
      response.end(body === undefined ? undefined : JSON.stringify(body))
    }
    try {
      let text = ''
      for await (const chunk of request) text += chunk
      const body = text ? JSON.parse(text) : {}
      const [, , noun, id, verb] = url.pathname.split('/')
      if (url.pathname === '/dev/restart') return send(200, restart())
      if (url.pathname === '/dev/engine') return send(200, engine(body))
      if (!url.pathname.startsWith('/api/')) return await file(url.pathname, response)
      if (noun === 'app') return send(200, { version: '0.1.0', language: 'en', assistants_ready: assistants.length > 0, loopback_only: true })
      if (noun === 'assistants') return send(200, { items: assistants })
      if (noun !== 'conversations') throw problem(404, 'not_found', 'Not found.', null)
      if (!id && request.method === 'GET') return send(200, list(url.searchParams))
      if (!id) {
        const thread = createConversation(body.assistant_id)
        listChanged(thread)
        return send(201, thread.conversation)
      }
      if (verb === 'restore') {
        const thread = conversations.get(id)
        thread.deleted = false
        listChanged(thread)
        return send(200, thread.conversation)
      }
      const thread = threadOf(id)
      if (verb === 'export') {
        const name = `conversation.${url.searchParams.get('format') === 'json' ? 'json' : 'md'}`
        return send(200, snapshot(thread), { 'Content-Disposition': `attachment; filename="${name}"` })
      }
      if (request.method === 'GET') return send(200, snapshot(thread))
      if (request.method === 'PATCH') {
        Object.assign(thread.conversation, body)
        emit(thread, { kind: 'conversation', conversation: { ...thread.conversation } })
        listChanged(thread)
        return send(200, thread.conversation)
      }
      thread.deleted = true
      listChanged(thread, 'delete')
      return send(204)
    } catch (error) {
      if (error.status) return send(error.status, error)
      console.error(error)
      return send(500, problem(500, 'internal', String(error), null))
    }
  })

  function list(search) {
    const query = search.get('query')?.toLowerCase() ?? ''
    const items = [...conversations.values()]
      .filter(({ deleted }) => !deleted)
      .map(({ conversation }) => conversation)
      .filter(({ title }) => title.toLowerCase().includes(query))
      .sort((a, b) => Number(b.pinned) - Number(a.pinned) || b.updated_at.localeCompare(a.updated_at))
    const from = Number(search.get('cursor') ?? 0)
    const limit = Number(search.get('limit') ?? 50)
    return { items: items.slice(from, from + limit), next_cursor: from + limit < items.length ? String(from + limit) : null }
  }

  async function file(path, response) {
    const safe = normalize(path).replace(/^(\.\.[/\\])+/, '')
    const wanted = serveStatic && extname(safe) ? join(STATIC, safe) : join(STATIC, 'index.html')
    const content = await readFile(wanted).catch(() => null)
    if (!content) return response.writeHead(404).end()
    response.writeHead(200, { 'Content-Type': TYPES[extname(wanted)] ?? 'application/octet-stream', 'Content-Security-Policy': CSP })
    response.end(content)
  }

  const wss = new WebSocketServer({ server: http, path: '/ws' })
  wss.on('connection', (socket) => {
    socket.following = new Set()
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.send(JSON.stringify({ type: 'welcome', protocol: 1, epoch }))
    socket.on('message', (data) => {
      const request = JSON.parse(String(data))
      if (request.type === 'ping') return socket.send(JSON.stringify({ type: 'pong', id: request.id }))
      try {
        const result = requests[request.type](socket, request)
        socket.send(JSON.stringify({ type: 'ack', id: request.id, ...result }))
      } catch (error) {
        if (!error.status) throw error
        socket.send(JSON.stringify({ type: 'error', id: request.id, problem: error }))
      }
    })
  })

  /** What a restart of the real server does: a new epoch, and answers that were being written are interrupted. */
  function restart() {
    epoch = randomUUID()
    for (const thread of conversations.values()) {
      thread.log = []
      thread.seq = 0
      thread.conversation.generating = false
      for (const message of thread.messages.values()) {
        if (message.status === 'generating' || message.status === 'queued') message.status = 'interrupted'
      }
    }
    for (const socket of sockets) socket.terminate()
    return { epoch }
  }

  function engine(state) {
    Object.assign(assistants[0].engine, state)
    const frame = JSON.stringify({ type: 'engine', assistant: assistants[0] })
    for (const socket of sockets) socket.send(frame)
    return assistants[0]
  }

  if (seed) {
    SEED.forEach(({ title, daysAgo, pinned, messages }) => {
      const thread = createConversation('persona', title)
      const at = new Date(Date.now() - daysAgo * 86_400_000).toISOString()
      let parent = null
      messages.forEach(({ role, content, ...rest }, index) => {
        const message = addMessage(thread, { parent_id: parent, role, content, status: 'complete', ...rest })
        message.created_at = new Date(Date.parse(at) + index).toISOString()
        parent = message.id
      })
      Object.assign(thread.conversation, { pinned: Boolean(pinned), created_at: at, updated_at: at, leaf_id: parent })
    })
  }

  return {
    conversations,
    sockets,
    restart,
    listen: (port = 0) => new Promise((resolve) => http.listen(port, '127.0.0.1', () => resolve(http.address().port))),
    async close() {
      for (const socket of sockets) socket.terminate()
      wss.close()
      await new Promise((resolve) => http.close(resolve))
    },
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const flag = (name) => process.argv.includes(`--${name}`)
  const portAt = process.argv.indexOf('--port')
  const server = createMockServer({ serveStatic: flag('static'), empty: flag('empty'), seed: flag('seed') })
  const port = await server.listen(portAt < 0 ? 0 : Number(process.argv[portAt + 1]))
  console.log(`http://127.0.0.1:${port}`)
}
