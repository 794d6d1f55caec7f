/** A text area that grows with its text, up to what its CSS `max-height` allows. */
import { nextTick, onMounted, watch, type Ref } from 'vue'

export function useAutosize(area: Readonly<Ref<HTMLTextAreaElement | null>>, text: () => string): void {
  function fit(): void {
    const element = area.value
    if (!element) return
    element.style.height = 'auto'
    element.style.height = `${element.scrollHeight}px`
  }
  watch(text, () => void nextTick(fit))
  onMounted(fit)
}

/** Enter that sends: not with Shift, and not the Enter that ends the spelling of a Chinese word (229 is Safari's sign of it). */
export function isSendKey(event: KeyboardEvent): boolean {
  return event.key === 'Enter' && !event.shiftKey && !event.isComposing && event.keyCode !== 229
}
