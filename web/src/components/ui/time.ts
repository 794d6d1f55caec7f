/** Reactive clock and screen width for components. */
import { onScopeDispose, readonly, ref, watch, type Ref } from 'vue'

/** The time (ms), told every `everyMs` while `active`. */
export function useNow(active: () => boolean, everyMs = 1000): Readonly<Ref<number>> {
  const now = ref(Date.now())
  let timer: ReturnType<typeof setInterval> | undefined
  watch(
    active,
    (on) => {
      clearInterval(timer)
      if (!on) return
      now.value = Date.now()
      timer = setInterval(() => (now.value = Date.now()), everyMs)
    },
    { immediate: true },
  )
  onScopeDispose(() => clearInterval(timer))
  return readonly(now)
}

/** True when the list of conversations stands beside the chat; false when it is a drawer. */
export function useWide(): Readonly<Ref<boolean>> {
  const query = window.matchMedia('(min-width: 48rem)')
  const wide = ref(query.matches)
  const update = (event: MediaQueryListEvent) => (wide.value = event.matches)
  query.addEventListener('change', update)
  onScopeDispose(() => query.removeEventListener('change', update))
  return readonly(wide)
}
