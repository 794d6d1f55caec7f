/** Copies text and remembers for a moment how that went, for the words on the button. */
import { onScopeDispose, ref } from 'vue'
import { isDomException } from '@/stores/dom'

const SHOWN_MS = 2000

/** The clipboard API exists only on https and loopback; the old command works elsewhere. */
export async function copyText(text: string): Promise<boolean> {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text)
      return true
    } catch (error) {
      if (!isDomException(error)) throw error
    }
  }
  const area = document.createElement('textarea')
  area.value = text
  area.setAttribute('readonly', '')
  area.style.position = 'fixed'
  area.style.opacity = '0'
  document.body.append(area)
  area.select()
  const copied = document.execCommand('copy')
  area.remove()
  return copied
}

export function useCopy() {
  const state = ref<'idle' | 'copied' | 'failed'>('idle')
  let timer: ReturnType<typeof setTimeout> | undefined
  async function copy(text: string): Promise<void> {
    state.value = (await copyText(text)) ? 'copied' : 'failed'
    clearTimeout(timer)
    timer = setTimeout(() => (state.value = 'idle'), SHOWN_MS)
  }
  onScopeDispose(() => clearTimeout(timer))
  return { state, copy }
}
