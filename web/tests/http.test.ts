import { describe, expect, it } from 'vitest'
import { ApiError } from '@/api/failure'
import { createApi, fileNameIn } from '@/api/http'

function apiThat(answer: () => Promise<Response> | Response) {
  const requests: [string, RequestInit][] = []
  const api = createApi({
    language: () => 'zh-CN',
    fetch: async (input, init) => {
      requests.push([String(input), init ?? {}])
      return answer()
    },
  })
  return { api, requests }
}

const failure = (promise: Promise<unknown>) =>
  promise.then(
    () => null,
    (error: unknown) => (error instanceof ApiError ? error.failure : error),
  )

describe('calls', () => {
  it('carry a problem document to whoever asked', async () => {
    const problem = { type: 'about:blank', title: 'Full', status: 503, code: 'queue.full', fix: 'Wait.' }
    const { api } = apiThat(() => new Response(JSON.stringify(problem), { status: 503 }))
    expect(await failure(api.assistants())).toEqual({ kind: 'problem', problem })
  })

  it('tell a proxy page and an unreachable server apart', async () => {
    const page = apiThat(() => new Response('<html>Bad gateway</html>', { status: 502 }))
    expect(await failure(page.api.assistants())).toEqual({ kind: 'unexpected', status: 502 })
    const away = apiThat(() => Promise.reject(new TypeError('Failed to fetch')))
    expect(await failure(away.api.assistants())).toEqual({ kind: 'network' })
    const odd = apiThat(() => new Response('<html>', { status: 200 }))
    expect(await failure(odd.api.assistants())).toEqual({ kind: 'unexpected', status: 200 })
  })

  it('name what they want, encoded, in the language of the reader', async () => {
    const { api, requests } = apiThat(() => new Response('{"items":[],"next_cursor":null}'))
    await api.conversations('快 & slow', 'c1')
    const [path, init] = requests[0] ?? ['', {}]
    const search = new URL(path, 'http://x').searchParams
    expect(Object.fromEntries(search)).toEqual({ limit: '50', query: '快 & slow', cursor: 'c1' })
    expect(init.headers).toMatchObject({ 'Accept-Language': 'zh-CN' })
    await api.thread('a/../b')
    expect(requests[1]?.[0]).toBe('/api/conversations/a%2F..%2Fb')
  })

  it('make a conversation with an assistant, or with the default one', async () => {
    const { api, requests } = apiThat(() => new Response('{}', { status: 201 }))
    await api.createConversation('p')
    await api.createConversation(null)
    expect(requests.map(([, { body }]) => body)).toEqual(['{"assistant_id":"p"}', '{}'])
  })
})

describe('the name of a file', () => {
  it.each([
    ['attachment; filename="chat.md"', 'chat.md'],
    ['attachment; filename=chat.md', 'chat.md'],
    ["attachment; filename=\"x.md\"; filename*=UTF-8''%E5%AF%B9%E8%AF%9D.md", '对话.md'],
    ["attachment; filename=\"x.md\"; filename*=UTF-8''%E5%AF", 'x.md'],
    ['inline', null],
    [null, null],
  ])('%s', (header, name) => expect(fileNameIn(header)).toBe(name))
})
