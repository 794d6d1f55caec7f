import { mount } from '@vue/test-utils'
import { describe, expect, it } from 'vitest'
import type { Failure } from '@/api/failure'
import ProblemNote from '@/components/ui/ProblemNote.vue'
import { i18n } from '@/i18n'

function words(failure: Failure): string[] {
  const wrapper = mount(ProblemNote, { global: { plugins: [i18n] }, props: { failure } })
  return wrapper.findAll('p').map((line) => line.text())
}

describe('a problem', () => {
  it('says once what happened, where, and what to do', () => {
    const problem = {
      title: 'The queue is full.',
      status: 503,
      detail: 'llamacpp: The queue is full. Try again in 10 seconds.',
      where: 'llamacpp',
      fix: 'Try again in 10 seconds.',
    }
    expect(words({ kind: 'problem', problem })).toEqual([
      'The queue is full.',
      'Where: llamacpp',
      'Try again in 10 seconds.',
    ])
  })

  it('falls back to the detail when there is no remedy', () => {
    expect(words({ kind: 'problem', problem: { title: 'Bad', status: 400, detail: 'Bad: not this.' } })).toEqual(['Bad: not this.'])
  })

  it('names the command when the server cannot be reached', () => {
    expect(words({ kind: 'network' }).join(' ')).toContain('danlu up')
    expect(words({ kind: 'unexpected', status: 502 }).join(' ')).toContain('502')
  })
})
