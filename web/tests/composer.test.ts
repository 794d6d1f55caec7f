import { mount, type VueWrapper } from '@vue/test-utils'
import { createPinia } from 'pinia'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { nextTick } from 'vue'
import Composer from '@/components/chat/Composer.vue'
import { i18n } from '@/i18n'
import { stubMatchMedia } from './helpers'

let wrapper: VueWrapper
let submit: ReturnType<typeof vi.fn<(content: string) => Promise<boolean>>>

function open(props: Partial<InstanceType<typeof Composer>['$props']> = {}): VueWrapper {
  wrapper = mount(Composer, {
    attachTo: document.body,
    global: { plugins: [createPinia(), i18n] },
    props: { conversationId: null, assistantName: '小炉', answering: false, stopping: false, sending: false, submit, ...props },
  })
  return wrapper
}

const box = () => wrapper.get<HTMLTextAreaElement>('[data-testid=composer]')
const press = (options: object) => box().trigger('keydown', options)
const settled = async () => {
  await nextTick()
  await nextTick()
}

beforeEach(() => {
  localStorage.clear()
  stubMatchMedia()
  i18n.global.locale.value = 'en'
  submit = vi.fn<(content: string) => Promise<boolean>>(() => Promise.resolve(true))
})
afterEach(() => wrapper.unmount())

describe('Enter', () => {
  it('sends what was written, once, and empties the box', async () => {
    open()
    await box().setValue('  Hello  ')
    await press({ key: 'Enter' })
    await press({ key: 'Enter' })
    await settled()
    expect(submit.mock.calls).toEqual([['Hello']])
    expect(box().element.value).toBe('')
  })

  it('with Shift breaks the line', async () => {
    open()
    await box().setValue('Hello')
    await press({ key: 'Enter', shiftKey: true })
    expect(submit).not.toHaveBeenCalled()
  })

  it('that ends the spelling of a Chinese word does not send', async () => {
    open()
    await box().setValue('ni hao')
    await press({ key: 'Enter', isComposing: true })
    await press({ key: 'Enter', keyCode: 229 })
    expect(submit).not.toHaveBeenCalled()
  })

  it('sends nothing that is empty, and nothing while an answer is being written', async () => {
    open()
    await box().setValue(' \n ')
    await press({ key: 'Enter' })
    await box().setValue('Hello')
    await wrapper.setProps({ answering: true })
    await press({ key: 'Enter' })
    await wrapper.setProps({ answering: false, sending: true })
    await press({ key: 'Enter' })
    expect(submit).not.toHaveBeenCalled()
    expect(box().element.value).toBe('Hello')
  })

  it('keeps the text when it could not be sent', async () => {
    submit.mockResolvedValue(false)
    open()
    await box().setValue('Hello')
    await press({ key: 'Enter' })
    await settled()
    expect(box().element.value).toBe('Hello')
  })
})

describe('drafts', () => {
  it('are kept for each conversation, across a refresh', async () => {
    open({ conversationId: 'a' })
    await box().setValue('for a')
    await wrapper.setProps({ conversationId: 'b' })
    expect(box().element.value).toBe('')
    await box().setValue('for b')
    wrapper.unmount()
    open({ conversationId: 'a' })
    expect(box().element.value).toBe('for a')
    await wrapper.setProps({ conversationId: 'b' })
    expect(box().element.value).toBe('for b')
  })

  it('are gone once they were sent, also when a new chat has become a conversation meanwhile', async () => {
    submit.mockImplementation(async () => {
      await wrapper.setProps({ conversationId: 'fresh' })
      return true
    })
    open()
    await box().setValue('Hello')
    await press({ key: 'Enter' })
    await settled()
    expect(box().element.value).toBe('')
    await wrapper.setProps({ conversationId: null })
    expect(box().element.value).toBe('')
  })
})

describe('the rest of the keyboard', () => {
  it('edits the last question with ↑, in an empty box only', async () => {
    open()
    await press({ key: 'ArrowUp' })
    expect(wrapper.emitted('editLast')).toHaveLength(1)
    await box().setValue('x')
    await press({ key: 'ArrowUp' })
    expect(wrapper.emitted('editLast')).toHaveLength(1)
  })

  it('shows Stop instead of Send while an answer is being written', async () => {
    open({ answering: true })
    expect(wrapper.find('[data-testid=send]').exists()).toBe(false)
    await wrapper.get('[data-testid=stop]').trigger('click')
    expect(wrapper.emitted('stop')).toHaveLength(1)
  })

  it('speaks the other language at once', async () => {
    open()
    expect(box().attributes('placeholder')).toBe('Ask 小炉 something')
    i18n.global.locale.value = 'zh'
    await nextTick()
    expect(box().attributes('placeholder')).toBe('向 小炉 提问')
    expect(wrapper.get('[data-testid=send]').text()).toBe('发送')
  })
})
